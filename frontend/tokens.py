"""Between lexer and parser: brackets are matched, newlines inside them dropped, and separators made single."""

from __future__ import annotations

from collections.abc import Iterator

from lark import Token

OPENS = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSES = frozenset(OPENS.values())
DEEPEST = 64
"""Brackets within brackets."""


class BracketError(Exception):
    """`token` does not fit the bracket `opener` (None: nothing is open); `token` is None at the end of the file."""

    def __init__(self, token: Token | None, opener: Token | None) -> None:
        super().__init__()
        self.token = token
        self.opener = opener


class TooDeep(Exception):
    """`token` opens a bracket beyond DEEPEST."""

    def __init__(self, token: Token) -> None:
        super().__init__()
        self.token = token


class Separators:
    """A postlex filter of lark."""

    always_accept = ("NEWLINE", "SEMICOLON")

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        opened: list[Token] = []
        pending: Token | None = None  # a separator that counts once something follows it
        started = False
        for token in stream:
            if token.type in ("NEWLINE", "SEMICOLON"):
                inside = bool(opened) and opened[-1].type != "LBRACE"
                if inside and token.type == "NEWLINE":
                    continue
                if started and pending is None:
                    pending = Token.new_borrow_pos("_SEP", str(token), token)
                continue
            if token.type in OPENS:
                opened.append(token)
                if len(opened) > DEEPEST:
                    raise TooDeep(token)
            elif token.type in CLOSES:
                if not opened or OPENS[opened[-1].type] != token.type:
                    raise BracketError(token, opened[-1] if opened else None)
                opened.pop()
            if pending is not None:
                yield pending
                pending = None
            started = True
            yield token
        if opened:
            raise BracketError(None, opened[-1])
        if pending is not None:
            yield pending
