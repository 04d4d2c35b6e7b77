import pytest

from deploy.builders.trtexec_lines import Banner, NetworkInput, banner_line, build_line, read_banner, run_line
from deploy.targets import find_target

CROPS = NetworkInput("input_face_images", (1, 80, 80))
NANO, XAVIER, ORIN = find_target("jetson-nano"), find_target("xavier-nx"), find_target("orin")
HEAD = ("softmax_1", "concat_1")


def _line(version, target, precision="fp16", **options):
    wanted = target.model_copy(update={"precision": precision})
    return build_line("trtexec", version, wanted, CROPS, **options)


def test_the_line_of_a_nano():
    assert _line("8.2.1", NANO, folder="/opt/work/", float32_layers=HEAD) == (
        "trtexec",
        "--onnx=/opt/work/model.onnx",
        "--saveEngine=/opt/work/engine.engine",
        "--timingCacheFile=/opt/work/timing.cache",
        "--minShapes=input_face_images:1x1x80x80",
        "--optShapes=input_face_images:1x1x80x80",
        "--maxShapes=input_face_images:8x1x80x80",
        "--workspace=512",
        "--fp16",
        "--buildOnly",
    )


@pytest.mark.parametrize(
    ("version", "precision", "end"),
    [
        ("8.2.1", "fp32", ("--workspace=1024", "--buildOnly")),
        ("8.2.1", "int8", ("--workspace=1024", "--fp16", "--int8", "--buildOnly")),
        ("8.5.2", "fp32", ("--memPoolSize=workspace:1024", "--buildOnly")),
        (
            "8.5.2",
            "mixed",
            (
                "--memPoolSize=workspace:1024",
                "--fp16",
                "--int8",
                "--precisionConstraints=obey",
                "--layerPrecisions=softmax_1:fp32,concat_1:fp32",
                "--buildOnly",
            ),
        ),
        ("8.6.1.6", "fp32", ("--memPoolSize=workspace:1024", "--skipInference")),
        ("10.3.0", "int8", ("--memPoolSize=workspace:1024", "--stronglyTyped", "--skipInference")),
        ("10.16.1.11", "fp32", ("--memPoolSize=workspace:1024", "--stronglyTyped", "--skipInference")),
        ("11.4.0", "int8", ("--memPoolSize=workspace:1024", "--skipInference")),
    ],
)
def test_what_each_version_is_told_of_workspace_and_precision(version, precision, end):
    line = _line(version, XAVIER, precision, float32_layers=HEAD)
    assert line[-len(end) :] == end
    assert line[-len(end) - 1] == "--maxShapes=input_face_images:16x1x80x80"


def test_a_fixed_batch_has_no_profile_and_a_name_with_a_colon_is_quoted():
    fixed = build_line("trtexec", "8.5.2", XAVIER, NetworkInput("crops", (1, 80, 80), batch=4))
    assert not [option for option in fixed if "Shapes" in option]
    named = build_line("trtexec", "8.5.2", XAVIER, NetworkInput("input_face_images:0", (1, 80, 80)))
    assert "--optShapes='input_face_images:0':1x1x80x80" in named


def test_a_run_for_predictions_and_one_for_time():
    once = run_line("trtexec", "/e/x.engine", CROPS, 8, folder="/w/", timed=False)
    assert once == (
        "trtexec",
        "--loadEngine=/e/x.engine",
        "--loadInputs=input_face_images:/w/crops.bin",
        "--shapes=input_face_images:8x1x80x80",
        "--warmUp=0",
        "--duration=0",
        "--iterations=1",
        "--exportOutput=/w/outputs.json",
    )
    timed = run_line("trtexec", "/e/x.engine", CROPS, 1, folder="/w/", timed=True)
    assert timed[-4:] == ("--warmUp=500", "--duration=3", "--iterations=200", "--exportTimes=/w/times.json")
    assert banner_line("trtexec")[1].startswith("--loadEngine=")


@pytest.mark.parametrize(
    ("code", "version"),
    [
        ("8201", "8.2.1"),
        ("8502", "8.5.2"),
        ("8601", "8.6.1"),
        ("100300", "10.3.0"),
        ("101601", "10.16.1"),
        ("110400", "11.4.0"),
    ],
)
def test_versions_in_a_banner(code, version):
    text = (
        f"&&&& RUNNING TensorRT.trtexec [TensorRT v{code}] # trtexec\n"
        "[I] Selected Device: Orin \n[I] Compute Capability: 8.7\n"
    )
    assert read_banner(text) == Banner(version, "Orin", 87)


def test_a_banner_of_something_else():
    assert read_banner("sh: trtexec: not found") == Banner(None, None, None)
