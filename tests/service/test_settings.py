"""Flags over environment over defaults; every mistake is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import PREFIX, Settings
from service.settings_read import SettingsError, parse
from service.version import program_version


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch):
    import os

    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    def parse_with(*argv: str, **environ: str) -> Settings:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return parse(argv, environ)

    return parse_with


def test_defaults(read):
    settings = read()
    assert (settings.host, settings.port, settings.device) == ("127.0.0.1", 8000, "cpu")
    assert settings.models == Path("models")
    assert settings.threads is None
    assert settings.nan_policy == "null"


def test_a_flag_wins_over_the_environment(read):
    assert read(FOLDSERVE_PORT="9000").port == 9000
    assert read("--port", "9001", FOLDSERVE_PORT="9000").port == 9001
    assert read(foldserve_port="9002").port == 9002


def test_an_empty_variable_is_no_value(read):
    assert read(FOLDSERVE_PORT="", FOLDSERVE_DEFAULT_MODEL="").port == 8000


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_knob_has_a_flag_and_a_variable(read, name: str):
    value = {
        "models": "m", "host": "::1", "default_model": "m", "device": "auto",
        "nan_policy": "error", "grpc_outputs": "mirror", "server_name": "triton",
        "ready_when": "all", "provider": "auto", "max_error": "0.5",
        "version_policy": "latest:7", "log_level": "error",
        "cors_origins": "https://a.example", "metrics": "off", "log_format": "json",
        "engine": "ray", "gpus_per_replica": "0.5", "target_ongoing_requests": "7.5",
        "scale_window_ms": "700", "otlp_endpoint": "http://a:4318/v1/traces",
    }.get(name, "7")  # fmt: skip
    flag = "--" + name.replace("_", "-")
    assert str(getattr(read(flag, value), name)) == value
    assert str(getattr(read(**{PREFIX + name.upper(): value}), name)) == value


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_quantity_has_its_unit_in_its_name(name: str):
    annotation = Settings.model_fields[name].annotation
    if annotation is int and name != "port":
        counts = {"max_connections", "workers", "cuda_device_id", "store_attempts"}
        units = (
            "_ms",
            "_us",
            "_bytes",
            "_samples",
            "_requests",
            "_pixels",
            "_replicas",
            "_percent",
        )
        assert name in counts or name.endswith(units) or name.startswith("cpus_per_")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "70000"),
        ("--port", "http"),
        ("--device", "tpu"),
        ("--threads", "0"),
        ("--queue-capacity-samples", "0"),
        ("--max-body-bytes", "1.5"),
        ("--nan-policy", "NaN"),
        ("--request-timeout-ms", "-1"),
        ("--host", ""),
    ],
)
def test_an_unusable_value_names_its_source(read, flag: str, value: str):
    with pytest.raises(SettingsError) as caught:
        read(flag, value)
    assert flag in str(caught.value)
    assert repr(value) in str(caught.value)


def test_an_unusable_variable_names_itself(read):
    with pytest.raises(SettingsError, match="FOLDSERVE_DEVICE='tpu' cannot be used"):
        read(FOLDSERVE_DEVICE="tpu")


def test_a_misspelled_variable_is_an_error(read):
    with pytest.raises(SettingsError, match=r"FOLDSERVE_PROT .* mean FOLDSERVE_PORT"):
        read(FOLDSERVE_PROT="9000")
    with pytest.raises(SettingsError, match="not a setting"):
        read(FOLDSERVE_XYZZY="1")


def test_kubernetes_service_links_are_not_settings(read):
    """A Service named foldserve puts these into every pod beside it."""
    settings = read(
        FOLDSERVE_PORT="tcp://10.0.0.1:8000",
        FOLDSERVE_SERVICE_HOST="10.0.0.1",
        FOLDSERVE_SERVICE_PORT="8000",
        FOLDSERVE_SERVICE_PORT_HTTP="8000",
        FOLDSERVE_PORT_8000_TCP="tcp://10.0.0.1:8000",
        FOLDSERVE_PORT_8000_TCP_ADDR="10.0.0.1",
    )
    assert settings.port == 8000


@pytest.mark.parametrize("argv", [["--prot", "1"], ["--port"], ["8000"], ["--po", "1"]])
def test_an_unknown_flag_ends_with_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(argv, {})
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--prot", "1"], "unknown argument --prot. Did you mean --port?"),
        (["--prot=1"], "unknown argument --prot. Did you mean --port?"),
        (["8000"], "unknown argument 8000 (--help lists all)"),
    ],
)
def test_what_an_unknown_flag_is_answered(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        parse(argv, {})
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 2  # not fifty flags in front of it


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--version-policy", "latest:0"], "latest, latest:N, all or specific:A,B"),
        (["--port", "http"], "it must be a whole number"),
        (["--cors-origins", "*"], r"used: '\*' is not an origin"),
        (["--otlp-endpoint", "collector:4317"], "they go over HTTP"),
    ],
)
def test_unusable_values_are_told_in_words(argv: list[str], why: str):
    with pytest.raises(SettingsError, match=why):
        parse(argv, {})


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"Foldserve {program_version()}\n"


def test_help_lists_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in text
    assert "default: 8000" in text


@pytest.mark.parametrize(
    "name", ["API_KEYS_FILE", "REQUIRE_SIGNATURE", "TLS_CERTIFICATE", "TLS_CLIENT_CA"]
)
def test_what_protects_is_not_turned_off_by_an_empty_variable(name: str):
    """As from a secret that is missing; other empty variables are passed over."""
    assert getattr(parse([], {"FOLDSERVE_PORT": ""}), name.lower()) is None
    with pytest.raises(SettingsError, match=f"FOLDSERVE_{name} is set and empty"):
        parse([], {f"FOLDSERVE_{name}": ""})
