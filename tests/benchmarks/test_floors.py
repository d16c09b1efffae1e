"""The computed floors of the CUDA kernels: what is counted in their machine code, and the times that follow."""

from __future__ import annotations

import pytest

from tests.scripts import load_script

SASS = """
\t\tFunction : _ZN4sumsI{name}EEv
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;    /* 0x0 */
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;        /* 0x0 */
        /*0020*/              @!P0 BRA 0x10 ;                          /* 0x0 */
{body}
"""
LOOP = """
        /*0030*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;    /* 0x0 */
        /*0040*/                   FADD R0, R4, R5 ;                   /* 0x0 */
        /*0050*/               @P2 BRA 0x40 ;                          /* 0x0 */
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;       /* 0x0 */
        /*0070*/                   STS [R0], R1 ;                      /* 0x0 */
        /*0080*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;       /* 0x0 */
        /*0090*/           @P0 BRA P1, 0x30 ;                          /* 0x0 */
        /*00a0*/                   EXIT ;                              /* 0x0 */
        /*00b0*/                   BRA 0xb0;                           /* 0x0 */
"""
STRAIGHT = """
        /*0030*/               @P0 EXIT ;                              /* 0x0 */
        /*0040*/                   EXIT ;                              /* 0x0 */
        /*0050*/                   MUFU.RCP R0, R1 ;                   /* 0x0 */
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [pytest.param(LOOP, 4, id="loop without its section between barriers"), pytest.param(STRAIGHT, 5, id="no loop")],
)
def test_instructions_that_run_for_every_feature_are_counted(body: str, expected: int) -> None:
    floors = load_script("benchmarks/floors.py")
    sass = SASS.format(name="f", body=body) + SASS.format(name="d", body=LOOP + LOOP)
    assert floors.counted(floors.instructions_of(sass, "4sumsIf")) == expected


def test_a_kernel_that_is_not_there_ends_the_table() -> None:
    floors = load_script("benchmarks/floors.py")
    with pytest.raises(SystemExit, match="0 kernels are named 4sumsIf, expected one"):
        floors.instructions_of("", "4sumsIf")


def test_times_are_those_of_the_bytes_and_of_the_issue_slots() -> None:
    floors = load_script("benchmarks/floors.py")
    n, c, h, w = floors.SHAPE
    kernel = floors.Kernel("stream, y", "float16", "NCHW", "6streamI", elements=4, moved=2)
    moving, issuing = floors.times(kernel, 80, copy=4.0, multiprocessors=100, clock=2.0)
    assert moving == pytest.approx(n * c * h * w * 2 * 2 / 4e12 * 1e6)
    # 20 instructions a feature, of which 100 multiprocessors issue 4 x 32 lanes' worth a clock, 2e9 times a second.
    assert issuing == pytest.approx(n * c * h * w * 20 / (100 * 128 * 2e9) * 1e6)
