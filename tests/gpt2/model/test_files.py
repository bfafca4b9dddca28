from __future__ import annotations

import json
import re
import shutil
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bot.errors import ExitCode, ModelInvalidError
from bot.gpt2.model import files
from bot.gpt2.model.folder import fingerprint
from bot.gpt2.model.loading import load
from tests.command_line import run_python
from tests.gpt2.hub import COMMIT, Hub, Repository

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

TOKENIZER = {"tokenizer.json": b"{}"}
VOCABULARY = {"vocab.json": b"{}", "merges.txt": b"#version: 0.2\n"}
SINGLE = {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": b"weights" * 200_000}
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
SHARDED = {
    "config.json": b'{"model_type": "gpt2"}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
}
WEIGHTS_MISSING = "has no model.safetensors."


def written(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def without(content: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if name not in names}


def fault_of(name: str | Path) -> str:
    with pytest.raises(ModelInvalidError) as caught:
        files.locate(str(name))
    assert caught.value.exit_code is ExitCode.MODEL_INVALID
    return str(caught.value)


class TestFolder:
    @pytest.mark.parametrize("content", [SINGLE | TOKENIZER, SINGLE | VOCABULARY, SHARDED | TOKENIZER])
    def test_a_complete_one_is_taken_as_it_is(self, tmp_path: Path, content: dict[str, bytes]) -> None:
        folder = written(tmp_path / "model", content)
        assert files.locate(str(folder)) == folder

    def test_a_path_may_begin_at_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        folder = written(tmp_path / "model", SINGLE | TOKENIZER)
        assert files.locate("~/model") == folder

    @pytest.mark.parametrize(
        "name", ["/no/such/folder", "./nowhere", "../nowhere", "a/b/c", "two words", "~nobody-here/x", "x" * 5000 + "!"]
    )
    def test_what_is_no_folder_and_no_name_is_said_so(self, name: str) -> None:
        assert fault_of(name) == (
            f"GPT2_MODEL is {name!r}, which is neither a folder nor a name on the Hugging Face hub."
        )

    def test_a_file_instead_of_its_folder(self, tmp_path: Path) -> None:
        weights = written(tmp_path, SINGLE) / "model.safetensors"
        assert fault_of(weights) == f"GPT2_MODEL names a file, {weights}; name its folder instead."

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ({}, "is empty: it has no config.json."),
            ({"README.md": b"# A model"}, "has no config.json."),
            (without(SINGLE | TOKENIZER, "config.json"), "has no config.json."),
            (without(SINGLE | TOKENIZER, "model.safetensors"), WEIGHTS_MISSING),
            (SINGLE, "has neither tokenizer.json nor vocab.json and merges.txt."),
            (SINGLE | without(VOCABULARY, "merges.txt"), "has neither tokenizer.json nor vocab.json and merges.txt."),
            (
                without(SHARDED | TOKENIZER, "model-00002-of-00002.safetensors"),
                "has no model-00002-of-00002.safetensors, which model.safetensors.index.json names.",
            ),
        ],
    )
    def test_a_missing_file_is_named(self, tmp_path: Path, content: dict[str, bytes], fault: str) -> None:
        folder = written(tmp_path / "model", content)
        assert fault_of(folder) == f"The model folder {folder} {fault}"

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (
                {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"} | TOKENIZER,
                "holds a LoRA adapter, which is only a change to another model: merge the two with PEFT's [^.]*.",
            ),
            (
                {f"checkpoint-{steps}/config.json": b"{}" for steps in (500, 1500, 1000)} | {"training_args.bin": b"x"},
                "has no config.json. Its folder checkpoint-1500 has one: name that folder, or a copy of it.",
            ),
            (
                {"config.json": b"{}", "checkpoint-500/config.json": b"{}"} | TOKENIZER,
                "has no model.safetensors. Its folder checkpoint-500 has one: name that folder, or a copy of it.",
            ),
            (
                {"snapshots/607a30d7/config.json": b"{}", "refs/main": b"607a30d7"},  # a model in the hub's cache
                "has no config.json. Its folder snapshots/607a30d7 has one: name that folder, or a copy of it.",
            ),
            (
                SINGLE | {"spiece.model": b"x"},
                "has neither tokenizer.json nor vocab.json and merges.txt. Its spiece.model is SentencePiece's: .*",
            ),
            (
                without(SINGLE, "model.safetensors") | TOKENIZER | {"tf_model.h5": b"x"},
                "has no model.safetensors. Only safetensors are read: save the model with Transformers' .*",
            ),
        ],
    )
    def test_what_is_there_instead_is_named_with_the_cure(
        self, tmp_path: Path, content: dict[str, bytes], fault: str
    ) -> None:
        folder = written(tmp_path / "model", content)
        assert re.fullmatch(f"The model folder {folder} {fault}", fault_of(folder))

    @pytest.mark.parametrize(
        "name", ["config.json", "model.safetensors", "tokenizer.json", "model-00002-of-00002.safetensors"]
    )
    @pytest.mark.parametrize(
        ("content", "meaning"),
        [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 548105171\n",
                "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned.",
            ),
            (
                b"\n<!DOCTYPE html>\n<html>",
                "a web page, not the file itself: download it again, for example with `hf download`.",
            ),
        ],
    )
    def test_a_file_that_stands_for_another_is_named(
        self, tmp_path: Path, name: str, content: bytes, meaning: str
    ) -> None:
        model = (SHARDED if "0000" in name else SINGLE) | TOKENIZER
        folder = written(tmp_path / "model", model | {name: content})
        assert fault_of(folder) == f"{folder / name} is {meaning}"

    def test_an_empty_folder_does_not_hide_the_hubs_model_in_silence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gpt2").mkdir()
        assert fault_of("gpt2") == (
            "The model folder gpt2 is empty: it has no config.json. It comes before the model 'gpt2' on the Hugging "
            f"Face hub: rename or remove {tmp_path / 'gpt2'} if you mean that one."
        )

    def test_its_fingerprint_is_that_of_its_weights(self, tmp_path: Path) -> None:
        folder = written(tmp_path / "m", SINGLE | TOKENIZER)
        before = fingerprint(folder)
        assert fingerprint(folder) == before
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes() + b"x")
        assert fingerprint(folder) != before
        other = written(tmp_path / "other", SINGLE | TOKENIZER)
        assert fingerprint(other) != before

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
    def test_weights_that_could_run_code_are_refused_with_the_reason(self, tmp_path: Path, name: str) -> None:
        folder = written(tmp_path, without(SINGLE, "model.safetensors") | TOKENIZER | {name: b""})
        assert fault_of(folder).endswith(
            f"{WEIGHTS_MISSING} Only safetensors are read, because loading other formats can run code."
        )

    @pytest.mark.parametrize(
        "outside",
        ["../other.safetensors", "/etc/passwd", "sub/model.safetensors", "weights.bin", "..", "", 5, None, ["a"]],
    )
    def test_an_index_cannot_lead_out_of_the_folder(self, tmp_path: Path, outside: object) -> None:
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": outside}}
        content = SHARDED | TOKENIZER | {"model.safetensors.index.json": json.dumps(index).encode()}
        assert f"names {outside!r}, which is no safetensors file beside it." in fault_of(written(tmp_path, content))

    @pytest.mark.parametrize(
        "index", [b"", b"{", b"[]", b"5", b"{}", b'{"weight_map": []}', b"\xff", b'{"weight_map": 1}']
    )
    def test_a_damaged_index_is_named(self, tmp_path: Path, index: bytes) -> None:
        folder = written(tmp_path, SHARDED | TOKENIZER | {"model.safetensors.index.json": index})
        assert f"{folder / 'model.safetensors.index.json'} is damaged" in fault_of(folder)

    def test_an_index_of_nothing_is_a_fault(self, tmp_path: Path) -> None:
        folder = written(tmp_path, SHARDED | TOKENIZER | {"model.safetensors.index.json": b'{"weight_map": {}}'})
        assert "names no file" in fault_of(folder)


class TestLoading:
    """Files that are there but cannot be used; `bot.gpt2.model.loading` reads them."""

    @pytest.fixture
    def folder(self, tiny_model: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_model, tmp_path / "model"))

    @staticmethod
    def fault_of(folder: Path) -> str:
        with pytest.raises(ModelInvalidError) as caught:
            load(str(folder), device="cpu")
        return str(caught.value)

    @staticmethod
    def change(folder: Path, **values: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"not json"])
    def test_a_damaged_config(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        assert f"{folder / 'config.json'} cannot be read as JSON" in self.fault_of(folder)

    @pytest.mark.parametrize("content", [b"[]", b'"gpt2"', b"null", b"{}", b'{"model_type": "llama"}'])
    def test_a_config_of_something_else(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        assert "this bot runs GPT-2 (model_type 'gpt2')" in self.fault_of(folder)

    @pytest.mark.parametrize("values", [{"n_embd": 33}, {"n_head": 0}, {"n_layer": "many"}, {"vocab_size": 5}])
    def test_a_config_that_does_not_fit(self, folder: Path, values: dict[str, Any]) -> None:
        self.change(folder, **values)
        assert str(folder) in self.fault_of(folder)

    @pytest.mark.parametrize("size", [0, 5, 100, -40])
    def test_truncated_weights(self, folder: Path, size: int) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:size])
        assert f"The weights in {folder} cannot be loaded" in self.fault_of(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["transformer.wpe.weight"] = torch.zeros(7, 7)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert "transformer.wpe.weight has the shape [7, 7] instead of [128, 32]" in self.fault_of(folder)

    @pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]"])
    def test_a_damaged_tokenizer(self, folder: Path, content: bytes) -> None:
        (folder / "tokenizer.json").write_bytes(content)
        assert f"The tokenizer in {folder} cannot be loaded" in self.fault_of(folder)

    def test_shards_are_one_model(self, folder: Path, tiny_model: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names, weight_map = sorted(tensors), {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            shard = f"model-0000{number}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / shard, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, shard)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        sharded, whole = load(str(folder), device="cpu"), load(str(tiny_model), device="cpu")
        assert sharded.info.missing == ()
        for info in whole.parameters.infos:
            assert torch.equal(sharded.parameters.tensor(info.name), whole.parameters.tensor(info.name)), info.name


EXPIRED = {"HF_TOKEN": "hf_expired"}

PROGRAM = """
import json, sys
from pathlib import Path
from bot.monitoring import logs
from bot.errors import OperatorError
from bot.gpt2.model import files
from bot.gpt2.model.folder import fingerprint
logs.configure("INFO", "json")
for name in sys.argv[2:]:
    try:
        folder = files.locate(name, Path(sys.argv[1]))
        print(json.dumps({file.name: file.stat().st_size for file in sorted(folder.iterdir())}))
    except OperatorError as error:
        print(json.dumps([error.exit_code, str(error)]))
"""


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a process has downloaded the model a/b."""
    folder = tmp_path_factory.mktemp("downloaded")
    with Hub() as hub:
        hub.repositories["a/b"] = Repository(SINGLE | TOKENIZER)
        TestHub.located(hub, folder, "a/b")
    return folder


class TestHub:
    """In a process of its own: huggingface_hub reads the hub's address when it is imported."""

    @pytest.fixture
    def hub(self) -> Iterator[Hub]:
        with Hub() as hub:
            yield hub

    @pytest.fixture
    def folder(self, downloaded: Path, tmp_path: Path) -> Path:
        """Return a folder of this test's own with a/b in its cache."""
        return Path(shutil.copytree(downloaded, tmp_path / "folder", symlinks=True))

    @staticmethod
    def run(hub: Hub, folder: Path, *names: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = run_python(
            "-c",
            PROGRAM,
            str(folder / "cache"),
            *names,
            folder=folder,
            environment={"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home")} | environment,
        )
        assert process.returncode == 0, process.stderr
        return process

    @classmethod
    def located(cls, hub: Hub, folder: Path, *names: str, **environment: str) -> list[Any]:
        """For each name the files of its folder with their sizes, or exit code and message."""
        return [json.loads(line) for line in cls.run(hub, folder, *names, **environment).stdout.splitlines()]

    def test_what_is_needed_is_fetched_and_nothing_else(self, hub: Hub, tmp_path: Path) -> None:
        rest = {
            "README.md": b"# A model",
            "pytorch_model.bin": b"x",
            "onnx/model.onnx": b"x",
            "generation_config.json": b"{}",
        }
        hub.repositories = {
            "openai-community/gpt2": Repository(SINGLE | TOKENIZER | VOCABULARY | rest),
            "someone/slow-tokenizer": Repository(SINGLE | VOCABULARY | {"added_tokens.json": b"{}"}),
            "someone/large": Repository(SHARDED | TOKENIZER),
            "someone/chinese": Repository(SINGLE | {"vocab.txt": b"[UNK]"}),
        }
        hub.renamed = {"gpt2": "openai-community/gpt2"}
        names = ("gpt2", "someone/slow-tokenizer", "someone/large", "someone/chinese")
        renamed, slow, large, chinese = self.located(hub, tmp_path, *names)
        assert renamed.keys() == {*SINGLE, *TOKENIZER, "generation_config.json"}
        assert renamed["model.safetensors"] == len(SINGLE["model.safetensors"])
        assert slow.keys() == {*SINGLE, *VOCABULARY, "added_tokens.json"}
        assert large.keys() == {*SHARDED, *TOKENIZER}
        assert chinese.keys() == {*SINGLE, "vocab.txt"}

    def test_what_is_in_the_cache_is_not_fetched_again_nor_missed_when_the_hub_is_gone(
        self, hub: Hub, tmp_path: Path
    ) -> None:
        hub.repositories["a/b"] = Repository(SHARDED | TOKENIZER)
        first = self.located(hub, tmp_path, "a/b")
        assert len(hub.downloads()) == len(SHARDED | TOKENIZER)
        hub.requests.clear()
        assert self.located(hub, tmp_path, "a/b") == first
        assert hub.downloads() == []
        hub.status = HTTPStatus.SERVICE_UNAVAILABLE
        assert self.located(hub, tmp_path, "a/b") == first
        hub.go_away()
        process = self.run(hub, tmp_path, "a/b")
        assert json.loads(process.stdout) == first[0]
        assert "using the cached copy" in process.stderr
        assert self.located(hub, tmp_path, "a/b", HF_HUB_OFFLINE="1") == first

    def test_a_new_revision_is_fetched_whole(self, hub: Hub, folder: Path) -> None:
        newer = SINGLE | TOKENIZER | {"model.safetensors": b"trained on", "generation_config.json": b"{}"}
        hub.repositories["a/b"] = Repository(newer, commit=COMMIT[::-1])
        (found,) = self.located(hub, folder, "a/b")
        assert found == {name: len(content) for name, content in newer.items()}

    def test_an_incomplete_copy_in_the_cache_is_no_copy(self, hub: Hub, folder: Path) -> None:
        (weights,) = (folder / "cache").glob("**/snapshots/*/model.safetensors")
        weights.unlink()
        hub.go_away()
        ((code, message),) = self.located(hub, folder, "a/b")
        assert code == ExitCode.UNREACHABLE
        assert "not in the local cache" in message

    def test_every_fault_has_its_sentence(self, hub: Hub, tmp_path: Path) -> None:
        hub.repositories = {
            "a/gated": Repository(SINGLE | TOKENIZER, gated=True),
            "a/no-config": Repository(without(SINGLE, "config.json") | TOKENIZER),
            "a/pickle": Repository({"config.json": b"{}", "pytorch_model.bin": b""} | TOKENIZER),
            "a/no-tokenizer": Repository(SINGLE),
            "a/bad-index": Repository(SHARDED | TOKENIZER | {"model.safetensors.index.json": b"{"}),
        }
        faults = {
            "a/gated": "without permission: ask for it on the model's page, then log in with `hf auth login`",
            "a/no-config": "The model 'a/no-config' on the Hugging Face hub has no config.json.",
            "a/pickle": "has no model.safetensors. Only safetensors are read",
            "a/no-tokenizer": "has neither tokenizer.json nor vocab.json and merges.txt.",
            "a/bad-index": "is damaged",
            "a/missing": "The Hugging Face hub has no model 'a/missing', and there is no folder of that name",
            "a/b--c": "GPT2_MODEL is 'a/b--c', which is not a valid name on the Hugging Face hub.",
        }
        for (code, message), fault in zip(self.located(hub, tmp_path, *faults), faults.values(), strict=True):
            assert fault in message
            assert code == ExitCode.MODEL_INVALID
            assert "\n" not in message.strip()

    def test_a_token_that_has_expired_keeps_nobody_from_public_models(self, hub: Hub, tmp_path: Path) -> None:
        hub.repositories = {
            "a/b": Repository(SINGLE | TOKENIZER),
            "a/gated": Repository(SINGLE | TOKENIZER, gated=True),
        }
        hub.refuses_tokens = True
        process = self.run(hub, tmp_path, "a/b", "a/gated", "a/private", **EXPIRED)
        found, *refusals = map(json.loads, process.stdout.splitlines())
        assert found.keys() == {*SINGLE, *TOKENIZER}
        assert "the hub refuses the access token (HF_TOKEN or `hf auth login`); asking without it" in process.stderr
        assert "hf_expired" not in process.stdout + process.stderr
        for (code, message), name in zip(refusals, ("a/gated", "a/private"), strict=True):
            assert code == ExitCode.MODEL_INVALID
            assert message == (
                "The Hugging Face hub refuses your access token, which is wrong or has expired, and without it has no "
                f"public model {name!r}: renew HF_TOKEN or `hf auth login`, and check GPT2_MODEL."
            )
        (found,) = self.located(hub, tmp_path, "a/b", HF_TOKEN="hf_ü")  # noqa: S106 # nor can it be sent
        assert found.keys() == {*SINGLE, *TOKENIZER}

    def test_a_model_in_the_cache_outlives_permission(self, hub: Hub, folder: Path) -> None:
        # The hub has no a/b any more, or made it private: it does not tell.
        for environment in ({}, EXPIRED):
            process = self.run(hub, folder, "a/b", **environment)
            assert json.loads(process.stdout) == {name: len(content) for name, content in (SINGLE | TOKENIZER).items()}
            assert '"reason": "the hub withholds the model"' in process.stderr
            hub.refuses_tokens = True

    def test_a_hub_that_refuses_connections_is_told_within_seconds(self, hub: Hub, tmp_path: Path) -> None:
        hub.go_away()
        for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
            ((code, message),) = self.located(hub, tmp_path, "gpt2", **environment)
            assert code == ExitCode.UNREACHABLE
            assert message == (
                "config.json of the model 'gpt2' could not be downloaded from the Hugging Face hub and is not in the "
                "local cache. Check the network, a proxy, or HF_HUB_OFFLINE; or put the model's files in a folder and "
                "point GPT2_MODEL at it."
            )

    def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_network(self, hub: Hub, tmp_path: Path) -> None:
        hub.repositories["a/b"] = Repository(SINGLE | TOKENIZER)
        (tmp_path / "cache").write_text("a file where the folder should be")
        ((code, message),) = self.located(hub, tmp_path, "a/b")
        assert code == ExitCode.MODEL_INVALID
        assert "config.json of the model 'a/b' could not be stored" in message
        assert "GPT2_CACHE" in message

    def test_a_downloads_progress_is_in_the_log(self, hub: Hub, tmp_path: Path) -> None:
        hub.repositories["a/b"] = Repository(SINGLE | TOKENIZER)
        lines = [json.loads(line) for line in self.run(hub, tmp_path, "a/b").stderr.splitlines()]
        (line,) = (line for line in lines if line["event"] == "downloading")
        assert (line["file"], line["done_mb"], line["total_mb"]) == ("model.safetensors", 1, 1)
