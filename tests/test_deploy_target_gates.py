import pytest
from pydantic import ValidationError

from deploy.parity import Latency, Parity
from deploy.target_gates import failures, gate_engine, require_reached
from deploy.targets import ParityBound, TargetGates, find_target
from schemas.errors import GateError

REGIONS = ("All", "Eyes", "Mouth")
GATES = TargetGates(
    parity=ParityBound(mean_px=0.1, max_px=1.0),
    regions={"Eyes": ParityBound(mean_px=0.01, max_px=0.5)},
    min_fps=100,
    max_p99_ms=12,
    max_size_mib=2,
)
TARGET = find_target("cpu").model_copy(update={"gates": GATES})
FAST = Latency(batch=1, runs=10, p50_ms=10, p90_ms=11, p99_ms=12)


def parity(**changes):
    mean, largest = dict.fromkeys(REGIONS, 0.005), dict.fromkeys(REGIONS, 0.5)
    return Parity(
        faces=8,
        mean_px=mean | changes.get("mean", {}),
        p95_px=mean,
        max_px=largest | changes.get("largest", {}),
        max_confidence=0.0,
        mean_confidence=changes.get("confidence", 0.5),
    )


def test_all_that_is_on_its_bound_passes():
    gates = gate_engine(TARGET, parity=parity(mean={"All": 0.1}), latency=FAST, size=2 * 2**20)
    assert [gate.name for gate in gates] == [
        *(f"parity {region} {kind}" for region in REGIONS for kind in ("mean", "max")),
        "parity confidence",
        "latency p99",
        "speed",
        "size",
    ]
    assert all(gate.passed and gate.value is not None for gate in gates)
    require_reached(gates, "the engine")


def test_a_region_has_the_bound_that_was_made_for_it():
    gates = gate_engine(TARGET, parity=parity(mean={"Eyes": 0.02, "Mouth": 0.02}), latency=FAST, size=1)
    (beyond,) = failures(gates)
    assert (beyond.name, beyond.value, beyond.bound, beyond.unit) == ("parity Eyes mean", 0.02, 0.01, "px")
    assert beyond.words == "parity Eyes mean 0.02 px (at most 0.01 px)"
    gates = gate_engine(TARGET, parity=parity(largest={"Eyes": 0.75, "Mouth": 0.75}), latency=FAST, size=1)
    assert [gate.words for gate in failures(gates)] == ["parity Eyes max 0.75 px (at most 0.5 px)"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"parity": parity(largest={"All": 1.1})}, "parity All max 1.1 px (at most 1 px)"),
        ({"parity": parity(mean={"Mouth": float("inf")})}, "parity Mouth mean inf px (at most 0.1 px)"),
        ({"parity": parity(mean={"Mouth": float("nan")})}, "parity Mouth mean nan px (at most 0.1 px)"),
        ({"parity": parity(confidence=1.1)}, "parity confidence 1.1 spreads (at most 0.5 spreads)"),
        ({"parity": parity(confidence=float("inf"))}, "parity confidence inf spreads (at most 0.5 spreads)"),
        ({"latency": Latency(1, 10, 10, 11, 12.5)}, "latency p99 12.5 ms (at most 12 ms)"),
        ({"latency": Latency(1, 10, 10.1, 11, 12)}, "speed 99 faces/s (at least 100 faces/s)"),
        ({"size": 3 * 2**20}, "size 3 MiB (at most 2 MiB)"),
    ],
)
def test_what_is_beyond_is_refused_with_its_number(found, words):
    gates = gate_engine(TARGET, **{"parity": parity(), "latency": FAST, "size": 1, **found})
    assert [gate.words for gate in failures(gates)] == [words]
    with pytest.raises(GateError) as refused:
        require_reached(gates, "the engine of target 'cpu'")
    assert str(refused.value) == f"the engine of target 'cpu' does not reach its gates: {words}"


def test_what_was_not_measured_never_counts_as_passed():
    gates = gate_engine(TARGET, size=1, not_measured="needs a GPU (SM87)")
    missing = failures(gates)
    assert [gate.name for gate in missing] == [
        *(f"parity {region} {kind}" for region in ("All", "Eyes") for kind in ("mean", "max")),
        "parity confidence",
        "latency p99",
        "speed",
    ]
    assert not any(gate.passed for gate in missing)
    assert missing[-1].words == "speed not measured: needs a GPU (SM87) (at least 100 faces/s)"
    with pytest.raises(GateError, match="speed not measured: needs a GPU"):
        require_reached(gates, "the engine of target 'cpu'")


def test_a_time_of_another_batch_is_no_measurement():
    slow = Latency(batch=8, runs=10, p50_ms=1, p90_ms=1, p99_ms=1)
    speed = next(gate for gate in gate_engine(TARGET, parity=parity(), latency=slow) if gate.name == "speed")
    assert speed.value is None
    assert "timed with 8 faces a call, the gate is for 1" in speed.words


def test_a_target_without_bounds_on_time_or_size_has_parity_alone():
    plain = find_target("cpu").model_copy(update={"gates": TargetGates(parity=GATES.parity)})
    assert all(gate.name.startswith("parity") for gate in gate_engine(plain, parity=parity(), latency=FAST, size=1))


def test_a_region_that_there_is_not_is_refused():
    with pytest.raises(ValidationError, match=r"there is no region 'Eyez' \(did you mean 'Eyes'\?\)"):
        TargetGates(parity=GATES.parity, regions={"Eyez": GATES.parity})
