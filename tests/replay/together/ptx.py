"""Runs PTX, the code of a virtual processor that NVIDIA's compiler makes of a kernel, in plain Python.

As much of it as our kernels need. Every instruction becomes a line of Python; registers are unsigned numbers
of their width. Reads and writes must be aligned and within what they belong to. Rules: NVIDIA, *Parallel
Thread Execution ISA*.
"""

import random
import re

import numpy as np

import warps

SPECIAL = {
    "%tid.x": "thread",
    "%ntid.x": "threads",
    "%ctaid.x": "block",
    "%dynamic_smem_size": "shared_bytes",
}

VALUES = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "neg": "-{0}",
    "mul": "{0} * {1}",
    "mad": "{0} * {1} + {2}",
    "div": "quotient({0}, {1})",
    "max": "max({0}, {1})",
    "min": "min({0}, {1})",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} ^ {1}",
    "not": "~{0}",
    "shl": "{0} << min({1}, 64)",
    "shr": "{0} >> min({1}, 64)",
    "mov": "{0}",
    "cvta": "{0}",
    "cvt": "{0}",
    "selp": "{0} if {2} else {1}",
    "popc": "{0}.bit_count()",
    "clz": "32 - {0}.bit_length()",
    "setp.eq": "{0} == {1}",
    "setp.ne": "{0} != {1}",
    "setp.lt": "{0} < {1}",
    "setp.le": "{0} <= {1}",
    "setp.gt": "{0} > {1}",
    "setp.ge": "{0} >= {1}",
}
"""What an instruction gives, by its operands."""

ARRAY = 1 << 40
"""The nth array that a kernel is given lies at n times this address."""


def signed(value, width):
    """A number of two's complement."""
    return value - (value >> width - 1 << width)


def quotient(a, b):
    """Rounded towards zero."""
    return a // b if (a < 0) == (b < 0) else -(-a // b)


def _width(kind):
    return 1 if kind == "pred" else int(kind[1:])


def _operand(text, kind):
    """A register, special register, address or number, as a number of this type."""
    width = _width(kind)
    if text in SPECIAL:
        found = SPECIAL[text]
    elif text.startswith("%"):
        found = text[1:]
    elif text.startswith("_cudapy_smem"):
        found = "0"  # all names of dynamic shared memory mean its beginning
    else:
        found = str(int(text, 0) & (1 << width) - 1)
    return f"signed({found}, {width})" if kind[0] == "s" else found


def _address(text):
    base, _, offset = text.strip("[]").partition("+")
    return f"{_operand(base, 'u64')} + {offset or 0}"


def _line(operation, operands):
    """One instruction in Python, or a branch: (predicate or None, target)."""
    name, *kinds = operation.split(".")
    to = operands[0].lstrip("%")
    match name:
        case "ld" if kinds[0] == "param":
            return f"{to} = parameters[{operands[1].strip('[]').rpartition('_')[2]}]"
        case "ld":
            kind = kinds[-1]
            taken = f"load({kinds[0]!r}, {_address(operands[1])}, {_width(kind) // 8})"
            return (
                f"{to} = signed({taken}, {_width(kind)}) & 0xFFFFFFFF"
                if kind[0] == "s"
                else f"{to} = {taken}"
            )
        case "st":
            kind = kinds[-1]
            return f"store({kinds[0]!r}, {_address(to)}, {_width(kind) // 8}, {_operand(operands[1], kind)})"
        case "atom":
            assert kinds == ["shared", "add", "u32"]
            return f"{to} = add({_address(operands[1])}, {_operand(operands[2], 'u32')})"
        case "bar":
            return "yield ('syncthreads',)"
        case "vote":
            vote, lanes = _operand(operands[1], "pred"), _operand(operands[2], "u32")
            return f"{to} = yield ('ballot_sync', {lanes}, {vote})"
        case "shfl":
            assert kinds[:2] == ["sync", "up"]
            value, by, _, mask = (_operand(one, "u32") for one in operands[1:])
            return f"{to.partition('|')[0]} = yield ('shfl_up_sync', {mask}, {value}, {by})"
    kind = kinds[-1]
    width = 1 if name == "setp" else _width(kinds[-2] if name == "cvt" else kind)
    if "wide" in kinds:
        width *= 2
    sorts = [kind] * len(operands)
    if name in ("shl", "shr"):
        sorts[2] = "u32"
    if name == "selp":
        sorts[3] = "pred"
    values = [_operand(one, sort) for one, sort in zip(operands[1:], sorts[1:], strict=True)]
    rule = VALUES[f"{name}.{kinds[0]}" if name == "setp" else name]
    return f"{to} = ({rule.format(*values)}) & {(1 << width) - 1:#x}"


def translate(text):
    """Make a generator function of the kernel in a PTX file."""
    blocks, labels = [[]], {}
    body = text[text.index("{", text.index(".entry")) + 1 : text.rindex("}")]
    for line in re.sub(r"//.*", "", body).splitlines():
        line = line.strip().rstrip(";").strip()
        if line.endswith(":"):
            blocks.append([])
            labels[line[:-1]] = len(blocks) - 1
        elif line and not line.startswith("."):
            blocks[-1].append(line)
            if "bra" in line.split()[: 1 + line.startswith("@")][-1] or line == "ret":
                blocks.append([])
    code = [
        "def run(parameters, load, store, add, thread, threads, block, shared_bytes):",
        " at = 0",
        " while True:",
    ]
    for number, lines in enumerate(blocks):
        code.append(f"  if at == {number}:")
        for line in lines:
            guard = ""
            if line.startswith("@"):
                predicate, line = line.split(None, 1)
                guard = f"if {'not ' * predicate.startswith('@!')}{predicate.lstrip('@!%')}: "
            operation, _, rest = line.partition(" ") if " " in line else line.partition("\t")
            operands = [one.strip() for one in rest.split(",")]
            if operation == "ret":
                code.append(f"   {guard}return")
            elif operation.startswith("bra"):
                code.append(f"   {guard or 'if True: '}at = {labels[operands[0]]}; continue")
            else:
                code.append(f"   {guard}{_line(operation, operands)}")
        code.append(f"   at = {number + 1}")
    names = {"signed": signed, "quotient": quotient}
    exec(compile("\n".join(code), "<PTX>", "exec"), names)
    return names["run"]


def launch(run, blocks, threads, shared_bytes, *arguments, seed=0):
    """Run what `translate` made on arrays, which it changes; numba's arrays are several parameters each."""
    memory, parameters = [], []
    for one in arguments:
        if isinstance(one, np.ndarray):
            memory.append(memoryview(one.reshape(-1).view(np.uint8)))
            parameters += 0, 0, one.size, one.itemsize, len(memory) * ARRAY, *one.shape, *one.strides
        else:
            parameters.append(int(one))
    order = random.Random(seed)
    for block in range(blocks):
        shared = memoryview(bytearray(shared_bytes))

        def place(space, address, size, shared=shared):
            array, at = (0, address) if space == "shared" else divmod(address, ARRAY)
            part = shared if space == "shared" else memory[array - 1]
            assert 0 <= at <= len(part) - size
            assert at % size == 0
            return part[at : at + size]

        def load(space, address, size, place=place):
            return int.from_bytes(place(space, address, size), "little")

        def store(space, address, size, value, place=place):
            place(space, address, size)[:] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

        def add(address, value, load=load, store=store):
            before = load("shared", address, 4)
            store("shared", address, 4, before + value)
            return before

        started = [
            run(parameters, load, store, add, thread, threads, block, shared_bytes)
            for thread in range(threads)
        ]
        warps.run_block(started, order)
