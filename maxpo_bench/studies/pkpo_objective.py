"""PKPO's one-parameter toy (arXiv:2505.15201, figure 1): J_K and its gradient against theta, by quadrature.

x ~ N(theta, 0.1), reward g(x) = x^2 on [0, 1], else 0. The larger K, the nearer the best theta comes to the cliff at 1.
"""

import numpy as np

TITLE = "What each K wants: the PKPO toy"
STD = 0.1
KS = (1, 2, 4, 8, 16)
THETAS = np.linspace(-0.2, 1.4, 161)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def cdf(reward, theta):
    """P(g(x) <= reward) and its derivative by theta, for reward in [0, 1); arrays broadcast."""
    from scipy.stats import norm

    root = np.sqrt(reward)
    above, below = (1 - theta) / STD, (root - theta) / STD
    win = norm.cdf(above) - norm.cdf(below)  # root < x <= 1: the reward is larger
    return 1 - win, (norm.pdf(above) - norm.pdf(below)) / STD


def objective(theta, k):
    """(J_k, dJ_k/dtheta) at each theta: J_k = 1 - integral of F^k over rewards in [0, 1], Gauss-Legendre in sqrt."""
    theta = np.atleast_1d(np.asarray(theta, dtype=np.float64))[:, None]
    value, slope = np.ones(len(theta)), np.zeros(len(theta))
    for low, high in ((0.0, 0.5), (0.5, 1.0)):
        x = low + (high - low) * (NODES + 1) / 2
        f, df = cdf(x**2, theta)
        w = WEIGHTS * (high - low) / 2 * 2 * x  # d reward = 2 x dx
        value -= (f**k) @ w
        slope -= (k * f ** (k - 1) * df) @ w
    return value, slope


def maximiser(k):
    """(theta, J_k) at the best theta, to machine precision of the root of the gradient."""
    from scipy.optimize import brentq

    grid = objective(THETAS, k)[0]
    near = THETAS[grid.argmax()]
    theta = brentq(lambda t: objective(t, k)[1][0], near - 0.05, near + 0.05, xtol=1e-12)
    return theta, objective(theta, k)[0][0]


def run():
    """Rows k, theta, value, gradient, kind: kind "curve" on a grid of theta, "maximiser", and "at 1" for theta = 1."""
    import pandas as pd

    rows = []
    for k in KS:
        values, gradients = objective(THETAS, k)
        rows += [
            {"k": k, "theta": t, "value": v, "gradient": g, "kind": "curve"}
            for t, v, g in zip(THETAS, values, gradients, strict=True)
        ]
        theta, value = maximiser(k)
        rows.append({"k": k, "theta": theta, "value": value, "gradient": 0.0, "kind": "maximiser"})
        value, gradient = objective(1.0, k)
        rows.append({"k": k, "theta": 1.0, "value": value[0], "gradient": gradient[0], "kind": "at 1"})
    return pd.DataFrame(rows)


def caption(data):
    best = data[data["kind"] == "maximiser"]
    listed = ", ".join(f"K = {row.k}: {row.theta:.4f} (J = {row.value:.4f})" for row in best.itertuples())
    return (
        f"J_K and dJ_K/dtheta of x ~ N(theta, 0.1) with reward x^2 on [0, 1] and 0 elsewhere, by quadrature: no "
        f"sampling, so no interval. Dots: maximisers, {listed}. The setting of figure 1 of arXiv:2505.15201."
    )


def figure(data):
    """J_K (left) and its gradient (right) against theta, one line per K, the maximisers marked."""
    import seaborn

    from maxpo_bench.studies import style

    fig, (left, right) = style.new_figure("full", 2.7, cols=2)
    palette = seaborn.color_palette(style.SEQUENCE, len(KS))
    for colour, k in zip(palette, KS, strict=True):
        rows = data[data["k"] == k]
        curve, best = rows[rows["kind"] == "curve"], rows[rows["kind"] == "maximiser"]
        left.plot(curve["theta"], curve["value"], color=colour, label=f"K = {k}")
        left.plot(best["theta"], best["value"], "o", color=colour, markeredgecolor="black", markeredgewidth=0.5)
        right.plot(curve["theta"], curve["gradient"], color=colour)
        right.plot(best["theta"], best["gradient"], "o", color=colour, markeredgecolor="black", markeredgewidth=0.5)
    right.axhline(0, color=style.GREY, linewidth=0.7)
    left.set(xlabel="theta [units of x]", ylabel="J_K [reward]")
    right.set(xlabel="theta [units of x]", ylabel="dJ_K / dtheta [reward per unit of x]")
    left.legend()
    return fig
