"""Mutants of a file: small changes of its code, made by cosmic-ray's operators and three more.

Left out is what no behaviour hangs on: annotations, messages of errors and logs, assertions for the
type checker, imports. One replacement is kept for each arithmetic operator and two for each
comparison (its boundary and its opposite), because the other dozens differ from these in nothing a
test would see.
"""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider

BINARY = (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul",
    "RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd",
)  # fmt: skip
COMPARISONS = (
    "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt",
    "GtE_Lt", "Is_IsNot", "IsNot_Is",
)  # fmt: skip
OTHERS = (
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr",
    "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer",
    "RemoveDecorator", "ZeroIterationForLoop", "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not",
)  # fmt: skip
TWINS = (
    ("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("argmin", "argmax"), ("all", "any"),
    ("zeros", "ones"), ("zeros_like", "ones_like"), ("floor", "ceil"), ("sum", "mean"),
    ("sin", "cos"), ("exp", "log"), ("train", "test"), ("clean", "adv"),
)  # fmt: skip
SWAPS = {a: b for pair in TWINS for a, b in (pair, pair[::-1])}
MODALITIES = {'"rgb"': '"skeleton"', '"skeleton"': '"rgb"'}
SILENT = (
    "raise_stmt",
    "assert_stmt",
    "import_name",
    "import_from",
    "fstring",
    "tfpdef",
    "decorator",
)


class DeleteStatement(Operator):
    """A call for its effect, an augmented assignment, or one to an attribute or item -> `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The statement, if it is one of these."""
        if node.type == "simple_stmt" and self._acts(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """`pass` in the statement's place."""
        prefix = node.children[0].get_first_leaf().prefix
        node.children[0] = parso.python.tree.Name("pass", node.children[0].start_pos, prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """As cosmic-ray wants them."""
        return (Example("x += 1", "pass"),)

    @staticmethod
    def _acts(statement: Any) -> bool:
        if statement.type in ("atom_expr", "power"):
            return True
        if statement.type != "expr_stmt":
            return False
        target, sign = statement.children[0], statement.children[1]
        return target.type == "atom_expr" or getattr(sign, "value", "=") != "="


class DropKeyword(Operator):
    """A call without one of its keyword arguments, so that the default holds."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Every `name=value` among the arguments of a call."""
        for child in self._arguments(node):
            yield child.start_pos, child.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The call without the argument and its comma."""
        gone = self._arguments(node)[index]
        at = node.children.index(gone)
        following = node.children[at + 1 : at + 2]
        comma = bool(following) and getattr(following[0], "value", "") == ","
        del node.children[at : at + 1 + comma]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """As cosmic-ray wants them."""
        return (Example("f(x, b=1)", "f(x, )"),)

    @staticmethod
    def _arguments(node: Any) -> list[Any]:
        called = node.type == "arglist" or (
            node.type == "trailer" and node.children[0].value == "(" and len(node.children) == 3
        )
        if not called:
            return []
        return [
            child
            for child in node.children
            if child.type == "argument" and getattr(child.children[1], "value", "") == "="
        ]


class SwapTwins(Operator):
    """A name or a modality for its counterpart: `min` for `max`, "rgb" for "skeleton"."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Names and strings that have a counterpart, where they are used."""
        named = node.type == "name" and node.value in SWAPS and not node.is_definition()
        keyword = node.parent is not None and node.parent.type == "argument"
        keyword = keyword and node is node.parent.children[0]
        if (named and not keyword) or (node.type == "string" and node.value in MODALITIES):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The counterpart."""
        node.value = SWAPS.get(node.value) or MODALITIES[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """As cosmic-ray wants them."""
        return (Example("min(x)", "max(x)"),)


def operators() -> dict[str, Operator]:
    """All operators in use, by name."""
    theirs = OperatorProvider()
    names = [f"ReplaceBinaryOperator_{name}" for name in BINARY]
    names += [f"ReplaceComparisonOperator_{name}" for name in COMPARISONS]
    found = {name: theirs[name]() for name in (*names, *OTHERS)}
    ours = (DeleteStatement, DropKeyword, SwapTwins)
    return {**found, **{operator.__name__: operator() for operator in ours}}


@dataclass(frozen=True)
class Mutant:
    """One change of one file. `was`, `now`: the changed lines without their indentation."""

    path: str
    line: int
    operator: str
    occurrence: int
    was: str
    now: str
    code: str
    diff: str

    @property
    def key(self) -> str:
        """A name that holds as long as the file is the same."""
        text = f"{self.path}/{self.operator}/{self.occurrence}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def positions(source: str) -> list[tuple[str, int, int]]:
    """(operator, occurrence, line) of every mutant of a file, without making them."""
    found, nodes = [], list(ast_nodes(get_ast(source)))
    for name, operator in operators().items():
        occurrence = 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                if not _silent(node):
                    found.append((name, occurrence, start[0]))
                occurrence += 1
    return found


def make(root: Path, path: str, operator: str, occurrence: int, line: int) -> Mutant:
    """The mutant at one of `positions`."""
    source = (root / path).read_text()
    code = mutate_code(source, operators()[operator], occurrence)
    assert code is not None, f"{path}: {operator} {occurrence} makes no change"
    rows = list(
        difflib.unified_diff(source.splitlines(), code.splitlines(), path, path, "", "", 1, "")
    )
    was, now = (
        " ".join(filter(None, (row[1:].strip() for row in rows[2:] if row.startswith(sign))))
        for sign in "-+"
    )
    return Mutant(path, line, operator, occurrence, was, now, code, "\n".join(rows[2:]))


def _silent(node: Any) -> bool:
    """Whether the node lies in what no behaviour hangs on."""
    child, parent = node, node.parent
    while parent is not None:
        kind = parent.type
        if kind in SILENT or child.type in SILENT:
            return not (node.type == "decorator" and child is node)
        if kind == "parameters" and child is node:  # the star before keyword-only ones
            return True
        if kind == "argument" and getattr(parent.children[0], "value", "") == "strict":
            return True  # of `zip`: it guards the programmer, and no result hangs on it
        if kind == "annassign" and child is parent.children[1]:
            return True
        if kind == "funcdef" and child is parent.annotation:
            return True
        if kind == "atom_expr" and getattr(parent.children[0], "value", "") in ("log", "warnings"):
            return True
        if kind == "expr_stmt" and getattr(parent.children[0], "value", "") == "__all__":
            return True
        child, parent = parent, parent.parent
    return False
