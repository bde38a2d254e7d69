"""Rows of float32 as SIMD vectors, inside numba's compiled functions.

LLVM's auto-vectoriser can't prove that the rows of a scatter don't overlap and falls back to
scalars, about three times slower, so the few operations on rows are spelled out for it. `lanes`
is a tuple whose length is the number of lanes, since numba knows that when it compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array


def _operation(function: Callable[..., Any]) -> Callable[..., Any]:
    operation: Callable[..., Any] = intrinsic(function)
    return operation


class _Lanes(types.Type):
    """Numba's type of a SIMD vector of float32."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(ir.FloatType(), lanes.width))


_CONTRACT = ("contract",)


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, start: Any, width: int
) -> Any:
    address = builder.gep(make_array(array_type)(context, builder, array).data, [start])
    return builder.bitcast(address, ir.PointerType(ir.VectorType(ir.FloatType(), width)))


def _broadcast(builder: Any, scalar: Any, width: int) -> Any:
    index = ir.IntType(32)
    undefined = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(index, 0))
    mask = ir.Constant(ir.VectorType(index, width), [0] * width)
    return builder.shuffle_vector(first, undefined, mask)


@_operation
def load(typing_context: Any, array: Any, start: Any, lanes: Any) -> Any:
    """The `len(lanes)` numbers of the flat float32 array from `start` on."""
    result = _Lanes(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_value, start_value, _ = arguments
        address = _pointer(
            context, builder, signature.args[0], array_value, start_value, result.width
        )
        return builder.load(address, align=4)

    return result(array, types.intp, lanes), generate


@_operation
def store(typing_context: Any, array: Any, start: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_value, start_value, row_value = arguments
        address = _pointer(context, builder, signature.args[0], array_value, start_value, row.width)
        builder.store(row_value, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, row), generate


@_operation
def spread(typing_context: Any, number: Any, lanes: Any) -> Any:
    """`number` in every lane."""
    result = _Lanes(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0], result.width)

    return result(types.float32, lanes), generate


def _lane_by_lane(combine: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    def operation(typing_context: Any, row: Any, other: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return combine(builder, *arguments)

        return row(row, row), generate

    return _operation(operation)


minus = _lane_by_lane(lambda builder, a, b: builder.fsub(a, b, flags=_CONTRACT))
times = _lane_by_lane(lambda builder, a, b: builder.fmul(a, b, flags=_CONTRACT))
over = _lane_by_lane(lambda builder, a, b: builder.fdiv(a, b))
larger = _lane_by_lane(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
smaller = _lane_by_lane(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))


@_operation
def add_scaled(typing_context: Any, row: Any, factor: Any, other: Any) -> Any:
    """`row + factor * other`, with a scalar factor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row_value, factor_value, other_value = arguments
        factors = _broadcast(builder, factor_value, row.width)
        return builder.fadd(
            row_value, builder.fmul(factors, other_value, flags=_CONTRACT), flags=_CONTRACT
        )

    return row(row, types.float32, row), generate


def _over_lanes(name: str, start: bool = False) -> Callable[..., Any]:
    def operation(typing_context: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            given = [*([ir.Constant(ir.FloatType(), 0.0)] if start else []), arguments[0]]
            function = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.{name}.v{row.width}f32",
                fnty=ir.FunctionType(ir.FloatType(), [argument.type for argument in given]),
            )
            return builder.call(function, given, fastmath=("nnan", "reassoc"))

        return types.float32(row), generate

    return _operation(operation)


row_maximum = _over_lanes("fmax")
row_minimum = _over_lanes("fmin")
row_sum = _over_lanes("fadd", start=True)


@_operation
def exp_below(typing_context: Any, row: Any, top: Any) -> Any:
    """`exp(row - top)` where no number of `row` exceeds `top`, to 2 ulp; at least e^-64.

    The floor keeps products with lattice weights out of the subnormal numbers, which are slow.
    exp(x) = 2^k exp(r), |r| <= log(2) / 2, and a polynomial for exp(r) (Cephes, expf).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row_value, top_value = arguments
        vector = row_value.type
        integers = ir.VectorType(ir.IntType(32), row.width)

        def constant(value: float) -> Any:
            return ir.Constant(vector, [value] * row.width)

        def multiply_add(factor: Any, other: Any, summand: Any) -> Any:
            return builder.fadd(
                builder.fmul(factor, other, flags=_CONTRACT), summand, flags=_CONTRACT
            )

        x = builder.fsub(row_value, _broadcast(builder, top_value, row.width))
        low = constant(-64.0)
        x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
        k = builder.fptosi(multiply_add(x, constant(np.log2(np.e)), constant(-0.5)), integers)
        whole = builder.sitofp(k, vector)
        r = multiply_add(whole, constant(-0.693359375), x)
        r = multiply_add(whole, constant(2.12194440e-4), r)
        p = constant(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ):
            p = multiply_add(p, r, constant(coefficient))
        p = multiply_add(builder.fmul(p, r), r, r)
        p = builder.fadd(p, constant(1.0))
        bias = ir.Constant(integers, [127] * row.width)
        mantissa_bits = ir.Constant(integers, [23] * row.width)
        power = builder.bitcast(builder.shl(builder.add(k, bias), mantissa_bits), vector)
        return builder.fmul(p, power)

    return row(row, types.float32), generate
