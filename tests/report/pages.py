"""What several tests of the report use: a page taken apart, the files a report wrote."""

from html.parser import HTMLParser

TASKS, ESTIMATORS = ("bandit", "maze", "frozenlake"), ("rloo", "passk_training", "pkpo", "maxpo")
EVIL = '<script>alert("x")</script> | **b** & [l](http://x)'


class Page(HTMLParser):
    """Tags and attributes of a page, and its text outside script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.skip = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skip += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def outputs(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted((root / "results").rglob("*"))
        if p.is_file() and not {"runs", "variance", "studies"} & set(p.relative_to(root).parts)
    }
