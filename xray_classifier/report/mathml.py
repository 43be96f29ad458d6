"""Formulas as MathML, which browsers draw by themselves: no script, no picture, no font to fetch.

Each function gives safe markup; plain text in it is escaped. Source: MathML Core, W3C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

OPERATORS = set("=+*/()|,;<>[]!")
"""Characters that are operators rather than names."""

SPELLED = {
    "-": "\u2212",
    "sigma": "\u03c3",
    "eta": "\u03b7",
    "lambda": "\u03bb",
    "mu": "\u03bc",
    "epsilon": "\u03b5",
    "integral": "\u222b",
    "half": "\u00bd",
    "<-": "\u2190",
    "~=": "\u2248",
    ">=": "\u2265",
    "*": "\u00b7",
    "partial": "\u2202",
    "in": "\u2208",
    "transposed": "\u22a4",
    "sum": "\u2211",
}
"""What is typed for signs that a keyboard lacks."""

_NAMES = {"sigma", "eta", "lambda", "mu", "epsilon", "half", "transposed"}


def formula(*parts: object) -> Markup:
    """A formula on a line of its own; texts are read as by `row`."""
    return _wrapped("math", row(*parts), ' display="block"')


def inline(*parts: object) -> Markup:
    """A formula inside a sentence."""
    return _wrapped("math", row(*parts))


def row(*parts: object) -> Markup:
    """Parts one after the other: markup as it is, texts split at blanks into names and numbers."""
    from markupsafe import Markup

    return _wrapped("mrow", Markup("").join(_part(part) for part in parts))


def sub(base: object, index: object) -> Markup:
    """A base with an index."""
    return _wrapped("msub", row(base) + row(index))


def power(base: object, exponent: object) -> Markup:
    """A base with an exponent."""
    return _wrapped("msup", row(base) + row(exponent))


def root(inside: object) -> Markup:
    """A square root."""
    return _wrapped("msqrt", row(inside))


def fraction(above: object, below: object) -> Markup:
    """One part over another."""
    return _wrapped("mfrac", row(above) + row(below))


def total(over: object) -> Markup:
    """A sum sign with what runs below it."""
    return _wrapped("munder", _part("sum") + row(over))


def words(text: str) -> Markup:
    """Plain words inside a formula."""
    from markupsafe import escape

    kept = text.replace(" ", "\u00a0")  # a browser drops blanks at the ends
    return _wrapped("mtext", escape(kept))


def slope(of: object, by: object) -> Markup:
    """A partial derivative."""
    return fraction(row("partial", of), row("partial", by))


def _part(part: object) -> Markup:
    from markupsafe import Markup

    if hasattr(part, "__html__"):
        return Markup(part)
    return Markup("").join(_token(token) for token in str(part).split())


def _token(token: str) -> Markup:
    """A number, an operator or a name, with the tag that makes a browser space it well."""
    from markupsafe import escape

    if token.replace(".", "", 1).isdigit():
        return _wrapped("mn", escape(token))
    sign = escape(SPELLED.get(token, token))
    if (token in SPELLED and token not in _NAMES) or all(letter in OPERATORS for letter in token):
        return _wrapped("mo", sign)
    return _wrapped("mi", sign)


def _wrapped(tag: str, inside: Markup, attributes: str = "") -> Markup:
    from markupsafe import Markup

    return Markup(f"<{tag}{attributes}>") + inside + Markup(f"</{tag}>")
