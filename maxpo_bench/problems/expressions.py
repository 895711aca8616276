"""A bounded reader of arithmetic written by a language model: no eval, no recursion, no unbounded number."""

MAX_CHARACTERS = 256
MAX_DIGITS = 12
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_DIGITS = frozenset("0123456789")  # str.isdigit also takes other scripts' digits and superscripts


def evaluate(text):
    """Value and numbers of an expression of non-negative integers, + - * / and parentheses.

    text: str, untrusted. Returns (value, numbers): value an exact (numerator, denominator) pair with denominator > 0,
    numbers the integers as written, left to right. Returns None for anything that is not such an expression: longer
    than 256 characters, an integer of more than 12 digits or with a leading zero, a division by zero, a sign before
    a number, other characters (spaces included). Time is linear in min(len(text), 256).
    """
    if not 0 < len(text) <= MAX_CHARACTERS:
        return None
    values, operators, numbers = [], [], []
    expect_value = True
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in _DIGITS:
            start = at
            while at < end and text[at] in _DIGITS:
                at += 1
            if not expect_value or at - start > MAX_DIGITS or (char == "0" and at - start > 1):
                return None
            number = int(text[start:at])
            numbers.append(number)
            values.append((number, 1))
            expect_value = False
            continue
        at += 1
        if char == "(":
            if not expect_value:
                return None
            operators.append(char)
        elif char == ")":
            if expect_value or not _reduce(values, operators, 0) or not operators:
                return None
            operators.pop()  # the matching "("
        elif char in _PRECEDENCE:
            if expect_value or not _reduce(values, operators, _PRECEDENCE[char]):
                return None
            operators.append(char)
            expect_value = True
        else:
            return None
    if expect_value or not _reduce(values, operators, 0) or operators:
        return None
    return values[0], numbers


def _reduce(values, operators, precedence):
    """Apply the waiting operators down to the last "(" that bind at least as tightly. False on a division by zero."""
    while operators and operators[-1] != "(" and _PRECEDENCE[operators[-1]] >= precedence:
        operator = operators.pop()
        (b, bd), (a, ad) = values.pop(), values.pop()
        if operator == "+":
            result = (a * bd + b * ad, ad * bd)
        elif operator == "-":
            result = (a * bd - b * ad, ad * bd)
        elif operator == "*":
            result = (a * b, ad * bd)
        elif b == 0:
            return False
        else:
            result = (a * bd, ad * b) if b > 0 else (-a * bd, -ad * b)
        values.append(result)
    return True
