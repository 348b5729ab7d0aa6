"""What lies around the service: containers, the page's commands, the client, the command."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support import pages
from support.program import command_line as program
from support.served import decoded, png, served

from defectrt.apps.service.config import ServeConfig
from defectrt.cli.app import command_line

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "deploy" / "Containerfile").read_text()
PAGE = (ROOT / "docs" / "service.md").read_text()


def instruction(name):
    """The value of the last instruction of that name."""
    return re.findall(rf"^{name} (.*)$", TEXT, re.M)[-1]


ENTRY = json.loads(instruction("ENTRYPOINT"))


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def kubernetes():
    return list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))


def test_the_program_takes_the_options_of_the_containers(compose, kubernetes):
    pod = kubernetes[0]["spec"]["template"]["spec"]
    cuda = json.loads(re.search(r"^CMD (.*)$", TEXT, re.M)[1])
    group = command_line()
    for more in (compose["services"]["defectrt"]["command"], pod["containers"][0]["args"], cuda):
        assert pages.fault(shlex.join([*ENTRY, *more]), group) is None
    assert pages.fault(shlex.join([*ENTRY, "--colour", "red"]), group)


def test_containers_run_without_rights_on_a_file_system_that_is_read_only(compose, kubernetes):
    service = compose["services"]["defectrt"]
    pod = kubernetes[0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    user = instruction("USER")
    assert user == "10001:10001"
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert pod["securityContext"]["runAsNonRoot"]
    assert service["read_only"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert service["cap_drop"] == container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert [text.split(":")[0] for text in service["tmpfs"]] == ["/tmp"]
    assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_port_token_and_paths_are_those_of_the_program(compose, kubernetes, fake_engine):
    pod, exposed = kubernetes[0]["spec"]["template"]["spec"], kubernetes[1]["spec"]
    container, port = pod["containers"][0], ServeConfig.model_fields["port"].default
    assert instruction("EXPOSE") == str(port)
    assert container["ports"][0]["containerPort"] == port
    assert exposed["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert exposed["selector"] == kubernetes[0]["spec"]["template"]["metadata"]["labels"]
    assert compose["services"]["defectrt"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert "/run/secrets/defectrt_token" in ENTRY
    assert list(compose["secrets"]) == ["defectrt_token"]
    assert "/run/secrets" in {mount["mountPath"] for mount in container["volumeMounts"]}
    with served(fake_engine[0]) as (client, _):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[name]["httpGet"]["path"]
            assert client.get(path, headers={"host": f"10.0.0.1:{port}"}).status_code == 200
    assert f"{port}/healthz" in TEXT


def test_the_time_to_end_is_longer_than_a_sample_may_take(compose, kubernetes):
    timeout = ServeConfig.model_fields["timeout"].default
    pod = kubernetes[0]["spec"]["template"]["spec"]
    minutes = re.fullmatch(r"(\d+)m", compose["services"]["defectrt"]["stop_grace_period"])
    assert pod["terminationGracePeriodSeconds"] > timeout + 60
    assert 60 * int(minutes[1]) >= timeout + 60


def test_a_container_gets_every_package():
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())
    let = (ROOT / ".containerignore").read_text().split()
    named = folders["tool"]["setuptools"]["package-dir"].values()
    assert {f"!{name}" for name in named} <= set(let)


def test_the_page_says_the_defaults():
    for name in ("queue", "max_bytes", "max_pixels", "timeout"):
        value = ServeConfig.model_fields[name].default
        said = {"max_bytes": "64 MiB", "max_pixels": "64 million"}.get(name, f"{value:g}")
        row = next(line for line in PAGE.splitlines() if f"`--{name.replace('_', '-')}`" in line)
        assert said in PAGE[PAGE.index("## Limits") :]
        assert row
    assert f"127.0.0.1:{ServeConfig.model_fields['port'].default}" in PAGE


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")
def test_the_pages_commands_are_answered(fake_engine, tmp_path):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "wood.png").write_bytes(png())
    options = {"images": {"line": tmp_path / "good"}, "jobs": tmp_path / "jobs"}
    lines = [line for block in pages.fenced(PAGE, "sh") for line in pages.lines(block)]
    assert len(lines) == 6
    with served(fake_engine[0], **options) as (client, _):
        for line in lines:
            url = str(client.base_url).rstrip("/")
            line = line.replace("http://127.0.0.1:8765", url).replace(
                "defect=scratch", "defect=spot"
            )
            for job in client.get("/v1/jobs").json():
                line = line.replace("ID", job["id"])
            line = line.replace("-N ", "-N --max-time 1 ")
            done = subprocess.run(
                line.replace("curl ", "curl -s -w %{stderr}%{http_code} "),
                shell=True, cwd=tmp_path, capture_output=True, text=True,
            )  # fmt: skip
            assert done.stderr in ("200", "202"), f"{line}\n{done.stdout}{done.stderr}"
    assert decoded((tmp_path / "made.png").read_bytes()).shape == (50, 60)
    assert json.loads((tmp_path / "made.json").read_text())["record"]["defect"] == "spot"


@pytest.mark.slow
def test_the_client_gets_an_image_and_a_label(fake_engine, tmp_path):
    (tmp_path / "part.png").write_bytes(png())
    (tmp_path / "token").write_text("0123456789abcdefTOKEN")
    with served(fake_engine[0], token_file=tmp_path / "token") as (client, _):
        environment = {
            "DEFECTRT_URL": str(client.base_url),
            "DEFECTRT_TOKEN": "0123456789abcdefTOKEN",
        }
        words = [sys.executable, ROOT / "examples" / "service_client.py", "part.png", "seed=3"]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
    assert done.stdout.startswith("spot ")
    assert decoded((tmp_path / "part_image.png").read_bytes()).shape == (50, 60)
    assert decoded((tmp_path / "part_label.png").read_bytes()).any()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--also", "x"], "NAME=DIR"),
        (["--also", "default=x"], "the service's own"),
        (["--token-file", "none"], "none"),
        (["--tls-cert", "x"], "both or none"),
    ],
)
def test_the_command_refuses_what_is_not_possible(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = program("serve", "--port", "0", *words)
    assert done.returncode in (2, 3)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
