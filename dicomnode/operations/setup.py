"""init: five answers become a commented configuration file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.errors import UsageError
from dicomnode.settings import ae_title, section_name


@dataclass(frozen=True, slots=True)
class Scanner:
    name: str
    ae_title: str
    host: str


@dataclass(frozen=True, slots=True)
class Pacs:
    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Site:
    """What `init` was told."""

    ae_title: str
    port: int
    data: str
    scanner: Scanner | None
    pacs: Pacs | None


def site(answers: Mapping[str, str]) -> Site:
    """The answers, by the key of their question, as values. Raises UsageError where one cannot be used."""
    values = {}
    for question in QUESTIONS:
        try:
            values[question.key] = question.read(answers[question.key])
        except ValueError as error:
            option = question.key.replace("_", "-")
            raise UsageError(f"--{option}: {error}", "give it again; see: dicomnode init --help") from None
    answered = Site(**values)
    scanner, pacs = answered.scanner, answered.pacs
    if scanner and pacs and (scanner.name == "pacs" or (scanner.ae_title, scanner.host) == (pacs.ae_title, pacs.host)):
        raise UsageError(
            "--scanner and --pacs have one name, or are one application", 'the PACS may send too: give --scanner ""'
        )
    return answered


def require_absent(path: Path, force: bool) -> None:
    """Raise UsageError where writing would replace a file, unless `force`."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "choose another with --config, or replace it with --force")


def write(path: Path, answers: Site) -> None:
    """Write the configuration file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(answers), encoding="utf-8")


def render(answers: Site) -> str:
    """The configuration file for a site: what was answered, and as comments what may be added."""
    return "\n".join((_node(answers), _scanner_section(answers.scanner), _pacs_section(answers.pacs), _rules(answers)))


def _port(text: str) -> int:
    text = text.strip()
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is no TCP port, which is a number from 1 to 65535")
    return int(text)


def _folder(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a folder must have a name")
    return text


def _host(text: str) -> str:
    if not text or len(text) > 255 or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no host name or address")
    return text


def _scanner(text: str) -> Scanner | None:
    if not text.strip():
        return None
    name, ae, host = _parts(text, "NAME,AE,HOST")
    return Scanner(section_name(name), ae_title(ae), _host(host))


def _pacs(text: str) -> Pacs | None:
    if not text.strip():
        return None
    ae, host, port = _parts(text, "AE,HOST,PORT")
    return Pacs(ae_title(ae), _host(host), _port(port))


def _parts(text: str, form: str) -> tuple[str, str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not of the form {form}")
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that `init` asks. `key` is also the name of the option that answers it; `read` raises ValueError."""

    key: str
    text: str
    default: str
    read: Callable[[str], Any]


QUESTIONS: Final = (
    Question("ae_title", "Our AE title", "DICOMNODE", ae_title),
    Question("port", "Our TCP port", "11112", _port),
    Question("data", "Folder for what is received", "data", _folder),
    Question("scanner", "A scanner that sends to us, as NAME,AE,HOST (empty: none yet)", "", _scanner),
    Question("pacs", "The PACS that we send to, as AE,HOST,PORT (empty: none yet)", "", _pacs),
)


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)


def _node(answers: Site) -> str:
    return f"""\
# The node's configuration. Every key is explained in docs/configuration.md; what is not here has its default.
# After a change:  dicomnode check   then restart, or reload a running node with SIGHUP.

[node]
ae_title = {_text(answers.ae_title)}
port = {answers.port}
data = {_text(answers.data)}                  # relative to this file, unless it starts with /
# ae_titles = ["DICOMNODE2"]   # more AE titles that we answer to
# durability = "power"         # what a C-STORE success survives: power (a power cut), process, none
# accept_unknown = false       # true: take associations from anybody (closed networks only)

[limits]
# disk_reserve = "10%"         # less free space than this: C-STORE is refused with 0xA700
# worker_memory_mb = 4096      # address space of each decoding and engine process

[completeness]
# quiet_s = 60                 # a series is complete after so long a silence,
# released_quiet_s = 20        # or after this one, once its associations are released; both until more is learned
# deadline_s = 600             # a series with gaps is waited for no longer than this
# on_deadline = "flag"         # and then: "proceed", "flag" (what is derived says so), or "hold" (for a person)

# Who may send to us. Callers that are not listed are refused, and the log says what to add here.
"""


def _scanner_section(scanner: Scanner | None) -> str:
    if scanner is None:
        return """\
# [peer.ct1]
# ae_title = "CT1"
# host = "ct1.hospital.local"
"""
    return f"""\
[peer.{scanner.name if "." not in scanner.name else _text(scanner.name)}]
ae_title = {_text(scanner.ae_title)}
host = {_text(scanner.host)}
# quiet_s = 120                # this scanner pauses longer than others
"""


def _pacs_section(pacs: Pacs | None) -> str:
    lines = f"""\
[peer.pacs]
ae_title = {_text(pacs.ae_title if pacs else "MAINPACS")}
host = {_text(pacs.host if pacs else "pacs.hospital.local")}
port = {pacs.port if pacs else 104}

[destination.pacs]
peer = "pacs"
# calling_ae = "sender"        # call the PACS with the scanner's AE title instead of ours
# forward = "when-complete"    # default: each original at once, as it is received
"""
    return lines if pacs else _commented(lines)


def _rules(answers: Site) -> str:
    match = f'peer = {_text(answers.scanner.name)}, Modality = "CT"' if answers.scanner else 'Modality = "CT"'
    enhance = f"""\
[[rule]]
name = "denoise chest CT"
match = {{ {match}, BodyPartExamined = "CHEST", SliceThickness = "1..3", ImageType = "ORIGINAL" }}
engines = ["ct-denoise"]
send = ["pacs"]
"""
    forward = """\
[[rule]]
name = "everything goes to the PACS"
match = { Modality = "*" }
send = ["pacs"]
"""
    return f"""\
# All rules are judged; what happens is the union of those that match. `dicomnode rules explain FILE` shows how.
# Research use only: what engines derive is marked RESEARCH. Remove the # to enhance (engines: dicomnode engines list).
{_commented(enhance)}
{forward if answers.pacs else _commented(forward)}"""


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" if line else "#\n" for line in text.splitlines())
