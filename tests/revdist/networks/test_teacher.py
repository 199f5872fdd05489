"""revdist.networks.teacher and revdist.networks.efficientnet"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from revdist.errors import TeacherError
from revdist.networks import teacher


def test_resnet_features_are_those_of_torchvision(resnet18_file: Path) -> None:
    whole = torchvision.models.resnet18(weights=None).eval()
    whole.load_state_dict(torch.load(resnet18_file, weights_only=True))
    taken: list[torch.Tensor] = []
    for layer in (whole.layer1, whole.layer2, whole.layer3):
        layer.register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        whole(x)
    for ours, theirs in zip(teacher.load("resnet18", resnet18_file)(x), taken, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "parameters", "entries"),
    [("resnet18", 2_782_784, 90), ("resnet50", 8_543_296, 258), ("wide_resnet50_2", 24_862_528, 258)],
)
def test_what_lies_behind_the_last_map_is_not_kept(name: str, parameters: int, entries: int) -> None:
    trunk = teacher.build(name)
    assert sum(each.numel() for each in trunk.parameters()) == parameters
    assert len(trunk.state_dict()) == entries


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (224, 32)])
def test_efficientnet_features_are_those_of_timm(lite0: teacher.Teacher, size: tuple[int, int]) -> None:
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(teacher.own_weights("efficientnet_lite0"), weights_only=True)
    reference.load_state_dict(dict(zip(reference.state_dict(), weights.values(), strict=True)))  # the same order
    taken: list[torch.Tensor] = []
    for stage in (2, 3, 5):  # their first block halves the resolution, after its expansion
        reference.blocks[stage][0].bn1.register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        reference(x)
    for ours, theirs in zip(lite0(x), taken, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_maps_have_strides_4_8_16_and_are_never_negative(lite0: teacher.Teacher) -> None:
    features = lite0(torch.randn(1, 3, 64, 96))
    assert [tuple(each.shape) for each in features] == [(1, 144, 16, 24), (1, 240, 8, 12), (1, 672, 4, 6)]
    assert lite0.channels == (144, 240, 672)
    assert all(each.min() >= 0 for each in features)


def test_a_teacher_never_trains(resnet18_file: Path) -> None:
    frozen = teacher.load("resnet18", resnet18_file)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    features = frozen(torch.randn(2, 3, 64, 64, requires_grad=True))
    assert not any(each.requires_grad for each in features)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())


def test_a_teacher_is_known_by_the_hash_of_its_file(resnet18_file: Path, tmp_path: Path) -> None:
    expected = hashlib.sha256(resnet18_file.read_bytes()).hexdigest()
    assert teacher.load("resnet18", resnet18_file).sha256 == expected
    state = torch.load(resnet18_file, weights_only=True)
    safetensors.torch.save_file(state, tmp_path / "resnet18.safetensors")
    other = teacher.load("resnet18", tmp_path / "resnet18.safetensors")
    assert other.sha256 != expected
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(other(x)[2], teacher.load("resnet18", resnet18_file)(x)[2])


def test_missing_and_unexpected_keys_are_listed(resnet18_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    del state["layer1.0.conv1.weight"]
    state["adapter.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(TeacherError, match=r"missing layer1\.0\.conv1\.weight; unexpected adapter\.weight"):
        teacher.load("resnet18", tmp_path / "odd.pth")


def test_weights_of_another_teacher_are_refused(resnet18_file: Path) -> None:
    with pytest.raises(TeacherError, match=r"no weights of resnet50: missing .* and \d+ more; .*check --teacher"):
        teacher.load("resnet50", resnet18_file)
    with pytest.raises(TeacherError, match="no weights of efficientnet_lite0"):
        teacher.load("efficientnet_lite0", resnet18_file)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(TeacherError, match=r"no weights of wide_resnet50_2: wrong shapes: .* and \d+ more"):
        teacher.load("wide_resnet50_2", tmp_path / "resnet50.pth")


def test_weights_that_are_not_finite_are_refused(resnet18_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("inf")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(TeacherError, match=r"not finite: layer1\.0\.conv1\.weight; the file is damaged"):
        teacher.load("resnet18", tmp_path / "odd.pth")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TeacherError, match="not a readable weights file"):
        teacher.load("resnet18", tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, resnet18_file: Path, suffix: str) -> None:
    path = tmp_path / f"half{suffix}"
    path.write_bytes(resnet18_file.read_bytes()[: 1 << 20])
    with pytest.raises(TeacherError, match=f"half{suffix}: not a readable weights file.*fetch it again"):
        teacher.load("resnet18", path)
    with pytest.raises(TeacherError, match=r"gone\.pth: cannot read"):
        teacher.load("resnet18", tmp_path / "gone.pth")


def test_offline_without_a_file_the_message_says_what_to_fetch_and_how_to_pass_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # refuses at once, as a network without a way out
    with pytest.raises(TeacherError) as caught:
        teacher.load("wide_resnet50_2")
    for part in ("wide_resnet50_2-95faca4d.pth", "IMAGENET1K_V1", "--teacher-weights", str(tmp_path)):
        assert part in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_download_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18_file: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(resnet18_file.read_bytes())
    with pytest.raises(TeacherError, match=r"resnet18-f37072fd\.pth: damaged"):
        teacher.load("resnet18")


def test_an_unknown_teacher_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TeacherError, match="choose one of wide_resnet50_2, resnet18"):
        teacher.load("vgg16")


def test_the_last_stage_of_a_resnet_is_that_of_torchvision(resnet18_file: Path) -> None:
    whole = torchvision.models.resnet18(weights=None).eval()
    whole.load_state_dict(torch.load(resnet18_file, weights_only=True))
    coarse = torch.randn(2, 256, 4, 6)
    loaded = teacher.load_last_stage(teacher.load("resnet18", resnet18_file)).eval()
    with torch.no_grad():
        assert torch.equal(loaded(coarse), whole.layer4(coarse))


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (224, 32)])
def test_the_last_stage_of_efficientnet_is_that_of_timm(lite0: teacher.Teacher, size: tuple[int, int]) -> None:
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    weights = torch.load(teacher.own_weights("efficientnet_lite0"), weights_only=True)
    reference.load_state_dict(dict(zip(reference.state_dict(), weights.values(), strict=True)))  # the same order
    taken: list[torch.Tensor] = []
    reference.blocks[6].register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        reference(x)
        ours = teacher.load_last_stage(lite0).eval()(lite0(x)[2])
    assert ours.shape == (2, 320, size[0] // 32, size[1] // 32)
    torch.testing.assert_close(ours, taken[0], rtol=1e-4, atol=1e-4)


def test_a_file_that_has_changed_gives_no_last_stage(resnet18_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    path.write_bytes(resnet18_file.read_bytes())
    loaded = teacher.load("resnet18", path)
    torch.save({}, path)
    with pytest.raises(TeacherError, match=r"resnet18\.pth: has changed since teacher resnet18 was loaded; try again"):
        teacher.load_last_stage(loaded)


def test_a_last_stage_that_is_not_whole_is_refused_with_what_to_do(resnet18_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    del state["layer4.1.bn2.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(TeacherError) as caught:
        teacher.load_last_stage(teacher.load("resnet18", tmp_path / "cut.pth"))
    assert "the last stage of resnet18 is not in it whole: missing layer4.1.bn2.weight" in caught.value.message
    assert "with --teacher-weights, or use --bottleneck full or oce" in caught.value.hint
