"""Vector steps over text: which of the next bytes are of a kind, as a mask; a hexadecimal number at once.

The functions run as they read when called from plain Python (or with ``NUMBA_DISABLE_JIT=1``); compiled
callers get LLVM vector code in their place. Text must go on for `LANES` bytes from wherever they look.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

LANES = 64
"""Bytes that are looked at together."""

DIGITS = 32
"""Bytes among which the digits of a number are counted."""

_I8, _I64 = ir.IntType(8), ir.IntType(64)


def _mask(bits: Any) -> Any:
    return np.uint64(sum(1 << i for i, bit in enumerate(bits) if bit))


def equals(text: Any, at: Any, byte: Any) -> Any:
    """Bit i is set where ``text[at + i]`` is `byte`, for i < 64."""
    return _mask(text[at : at + LANES] == byte)


def blanks(text: Any, at: Any) -> Any:
    """Bit i is set where ``text[at + i]`` is a blank or a control character, for i < 64."""
    return _mask(text[at : at + LANES] <= 32)


def hexadecimals(text: Any, at: Any) -> Any:
    """Bit i is set where ``text[at + i]`` is a hexadecimal digit, for i < 64."""
    return _mask(byte in b"0123456789abcdefABCDEF" for byte in bytes(text[at : at + LANES]))


def hex_digits(text: Any, at: Any) -> int:
    """How many hexadecimal digits stand at `at`; 32 where there are that many or more."""
    part = bytes(text[at : at + DIGITS])
    return len(part) - len(part.lstrip(b"0123456789abcdefABCDEF"))


def hex_value(text: Any, at: Any, digits: Any) -> int:
    """The bits, as of an int64, of the number of 1 to 16 hexadecimal digits at `at`."""
    value = int(bytes(text[at : at + digits]), 16)
    return value - (value >> 63 << 64)


def _bytes_at(context: Any, builder: Any, signature: Any, args: Any, count: int) -> Any:
    kind = ir.VectorType(_I8, count)
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.load(builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer()), align=1)


def _all(byte: int, count: int) -> Any:
    return ir.Constant(ir.VectorType(_I8, count), [byte] * count)


@intrinsic
def _vector_equals(typing: Any, text: Any, at: Any, byte: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part = _bytes_at(context, builder, signature, args, LANES)
        alone = builder.insert_element(ir.Constant(part.type, ir.Undefined), args[2], ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        wanted = builder.shuffle_vector(alone, alone, lanes)
        return builder.bitcast(builder.icmp_unsigned("==", part, wanted), _I64)

    return types.uint64(text, types.int64, types.uint8), code


@overload(equals)
def _equals(text: Any, at: Any, byte: Any) -> Callable[..., Any]:
    def form(text: Any, at: Any, byte: Any) -> Any:
        return _vector_equals(text, at, byte)  # type: ignore[call-arg]

    return form


@intrinsic
def _vector_blanks(typing: Any, text: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part = _bytes_at(context, builder, signature, args, LANES)
        return builder.bitcast(builder.icmp_unsigned("<=", part, _all(32, LANES)), _I64)

    return types.uint64(text, types.int64), code


@overload(blanks)
def _blanks(text: Any, at: Any) -> Callable[..., Any]:
    def form(text: Any, at: Any) -> Any:
        return _vector_blanks(text, at)  # type: ignore[call-arg]

    return form


def _hexadecimal_lanes(builder: Any, part: Any) -> Any:
    count = part.type.count
    decimal = builder.icmp_unsigned("<", builder.sub(part, _all(48, count)), _all(10, count))
    lower = builder.or_(part, _all(32, count))
    letter = builder.icmp_unsigned("<", builder.sub(lower, _all(97, count)), _all(6, count))
    return builder.bitcast(builder.or_(decimal, letter), ir.IntType(count))


@intrinsic
def _vector_hexadecimals(typing: Any, text: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _hexadecimal_lanes(builder, _bytes_at(context, builder, signature, args, LANES))

    return types.uint64(text, types.int64), code


@overload(hexadecimals)
def _hexadecimals(text: Any, at: Any) -> Callable[..., Any]:
    def form(text: Any, at: Any) -> Any:
        return _vector_hexadecimals(text, at)  # type: ignore[call-arg]

    return form


@intrinsic
def _vector_hex_digits(typing: Any, text: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        digits = _hexadecimal_lanes(builder, _bytes_at(context, builder, signature, args, DIGITS))
        others = builder.not_(builder.zext(digits, _I64))
        return builder.cttz(others, ir.Constant(ir.IntType(1), 1))

    return types.int64(text, types.int64), code


@overload(hex_digits)
def _hex_digits(text: Any, at: Any) -> Callable[..., Any]:
    def form(text: Any, at: Any) -> Any:
        return _vector_hex_digits(text, at)  # type: ignore[call-arg]

    return form


@intrinsic
def _vector_hex_value(typing: Any, text: Any, at: Any, digits: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part = _bytes_at(context, builder, signature, args, 16)
        letter = builder.lshr(builder.and_(part, _all(64, 16)), _all(6, 16))
        nibble = builder.add(builder.and_(part, _all(15, 16)), builder.mul(letter, _all(9, 16)))
        lanes = ir.VectorType(ir.IntType(32), 8)
        high = builder.shuffle_vector(nibble, nibble, ir.Constant(lanes, list(range(0, 16, 2))))
        low = builder.shuffle_vector(nibble, nibble, ir.Constant(lanes, list(range(1, 16, 2))))
        pairs = builder.or_(builder.shl(high, _all(4, 8)), builder.and_(low, _all(15, 8)))
        swap = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, [_I64]), "llvm.bswap.i64")
        value = builder.call(swap, [builder.bitcast(pairs, _I64)])
        unused = builder.shl(builder.sub(_I64(16), args[2]), _I64(2))
        return builder.lshr(value, unused)

    return types.int64(text, types.int64, types.int64), code


@overload(hex_value)
def _hex_value(text: Any, at: Any, digits: Any) -> Callable[..., Any]:
    def form(text: Any, at: Any, digits: Any) -> Any:
        return _vector_hex_value(text, at, digits)  # type: ignore[call-arg]

    return form
