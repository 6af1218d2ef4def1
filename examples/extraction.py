"""Extracts an invoice from a text: into a pydantic model, a dataclass and a msgspec Struct.

python examples/extraction.py [MODEL]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import msgspec
from pydantic import BaseModel, Field

from headrace import Client, HeadraceError

TEXT = "Invoice 17 of 2026-11-03 for the mill: 2 grindstones at 450.00 each, 1 belt at 80.50. Not paid yet."


class Line(BaseModel):
    article: str
    count: int = Field(ge=1)
    price: float = Field(description="The price of one piece")


class Invoice(BaseModel):
    number: int
    day: date
    lines: list[Line]


@dataclass
class Payment:
    is_paid: bool
    day: date | None = None


class Total(msgspec.Struct):
    total: Annotated[float, msgspec.Meta(ge=0, description="The sum of all lines")]


def main(model: str = "gpt-4o") -> None:
    """Ask for each of the three types. ``result.parsed`` is an instance of it."""
    with Client() as client:
        invoice = client.run_local(model=model, messages=TEXT, response_type=Invoice).parsed
        print(f"{invoice.number} of {invoice.day:%d %B %Y}:", [line.article for line in invoice.lines])
        payment = client.run_local(model=model, messages=TEXT, response_type=Payment).parsed
        print("paid" if payment.is_paid else "open")
        total = client.run_local(model=model, messages=TEXT, response_type=Total).parsed
        print(f"{total.total:.2f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HeadraceError as error:  # an OutputValidationError says where the answer does not fit
        sys.exit(str(error))
