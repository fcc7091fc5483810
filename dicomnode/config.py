"""One frozen tree of settings, read once at start: file, then secret files, then environment, the later one wins.

    dicomnode.toml                          [node] port = 11112
    $DICOMNODE_SECRETS/node__port           a folder of files, one setting each
    DICOMNODE_NODE__PORT=11113              sections and keys joined by two underscores, names in lower case

What the file says wrongly is a ConfigError with the place ("[peer.ct1] prt"), and in `hint` what to write instead.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, NestedSecretsSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from dicomnode.core.hours import WorkingHours, parse_hours
from dicomnode.core.proof import ProofKind
from dicomnode.core.rules import RuleSet, load_rules, rule_spec
from dicomnode.core.rules.clauses import nearest_word
from dicomnode.core.types import CompletenessPolicy, Peer
from dicomnode.errors import ConfigError, EngineError
from dicomnode.local_time import local_zone
from dicomnode.net.tls import ClientSecurity, Credentials, Profile, ServerSecurity
from dicomnode.rule_engines import UnusableEngine, held_to_engines, unusable_engines
from dicomnode.settings import (
    BucketSettings,
    ClusterSettings,
    CompletenessSettings,
    DerivedSettings,
    DestinationSettings,
    EngineSettings,
    LimitSettings,
    LogSettings,
    MetricsSettings,
    Name,
    NeedName,
    NeedSettings,
    NodeSettings,
    PeerSettings,
    RetentionSettings,
    RetrieveSettings,
    TlsSettings,
    ae_title,
)
from engines.bundle.signing import read_public_key
from engines.registry import default_registry

__all__ = ["DEFAULT_FILE", "Config", "examine", "find_config", "has_config", "load_config"]

DEFAULT_FILE: Final = Path("dicomnode.toml")
_PREFIX: Final = "DICOMNODE_"
_ONE_BRACKET: Final = re.compile(r"^\s*\[\s*rule\s*\]", re.MULTILINE)
_TWO_BRACKETS: Final = "write [[rule]], with two brackets"
_IN_TOML: Final[Mapping[str, str]] = {  # kinds of problem that pydantic tells in the words of Python
    "tuple_type": "input should be a list",
    "path_type": "input should be text",
}


class Config(BaseSettings):
    """Everything that a site sets. Built by `load_config`; every path in it is absolute then."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=_PREFIX, env_nested_delimiter="__", secrets_dir_missing="error"
    )

    node: NodeSettings = NodeSettings()
    bucket: BucketSettings = BucketSettings()
    cluster: ClusterSettings = ClusterSettings()
    tls: TlsSettings = TlsSettings()
    limits: LimitSettings = LimitSettings()
    peer: Mapping[Name, PeerSettings] = {}
    destination: Mapping[Name, DestinationSettings] = {}
    completeness: CompletenessSettings = CompletenessSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    need: Mapping[NeedName, NeedSettings] = {}
    rule: tuple[Mapping[str, Any], ...] = ()
    engines: EngineSettings = EngineSettings()
    derived: DerivedSettings = DerivedSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    _source: Path = PrivateAttr(DEFAULT_FILE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # init_settings is what the TOML file said: it yields to the other two
        secrets = NestedSecretsSettingsSource(file_secret_settings, secrets_prefix="")
        return env_settings, secrets, init_settings

    @property
    def source(self) -> Path:
        """The file this was read from."""
        return self._source

    @property
    def files(self) -> Path:
        """The folder of everything stored but the index, or of what is kept here of a bucket."""
        return self.node.files or self.node.data

    @property
    def bundles(self) -> Path:
        """The folder of the engine bundles that are installed on this machine."""
        return self.node.data / "engines"

    @property
    def compiled(self) -> Path:
        """The folder of networks that were compiled for this machine; whatever is in it can be made again."""
        return self.node.data / "compiled"

    @property
    def database(self) -> str | None:
        """The URL of the index, with its password; None where it is a file in the data folder."""
        return None if self.node.database is None else self.node.database.get_secret_value()

    @property
    def local_ae_titles(self) -> tuple[str, ...]:
        """Every AE title that we answer to; the first is what we call ourselves."""
        return (self.node.ae_title, *self.node.ae_titles)

    def peers(self) -> tuple[Peer, ...]:
        """The configured peers, in the order of the file."""
        return tuple(Peer(name, peer.ae_title, peer.host, peer.port) for name, peer in self.peer.items())

    def hours_of(self, destination: str) -> WorkingHours:
        """When a destination may be sent to, in this machine's local time."""
        written = self.destination[destination].hours
        return WorkingHours(tuple(map(parse_hours, written)), local_zone()) if written else WorkingHours()

    def peer_of(self, destination: str) -> Peer:
        """The peer behind a destination: it has host and port."""
        name = self.destination[destination].peer
        peer = self.peer[name]
        return Peer(name, peer.ae_title, peer.host, peer.port)

    def asked_peer_of(self, destination: str) -> Peer:
        """The peer that tells what a destination holds: it has host and port."""
        name = self.destination[destination].ask_peer or self.destination[destination].peer
        peer = self.peer[name]
        return Peer(name, peer.ae_title, peer.host, peer.port)

    @property
    def credentials(self) -> Credentials:
        """What we prove who we are with by TLS, and whom we believe."""
        return Credentials(self.tls.certificate, self.tls.key, self.tls.ca, Profile(self.tls.profile))

    @property
    def server_security(self) -> ServerSecurity | None:
        """How our TLS port is secured; None where there is none."""
        if self.tls.certificate is None:
            return None
        return ServerSecurity(self.credentials, self.tls.client_certificates == "required")

    @property
    def ports(self) -> tuple[tuple[int, bool], ...]:
        """What we listen on: TCP port, and whether it is for TLS."""
        plain = () if self.tls.only else ((self.node.port, False),)
        return plain if self.tls.certificate is None else (*plain, (self.tls.port, True))

    @property
    def addresses(self) -> tuple[str, ...]:
        """What we listen on, in words."""
        return tuple(f"{self.node.host}:{port}{' (TLS)' if is_tls else ''}" for port, is_tls in self.ports)

    def security_of(self, peer: str) -> ClientSecurity | None:
        """How the peer of that name is called; None: without TLS."""
        return ClientSecurity(self.credentials, self.peer[peer].certificate) if self.peer[peer].tls else None

    def completeness_of(self, peer: str) -> CompletenessPolicy:
        """How long to wait for series from the peer of that name; "" is a caller without one."""
        own = self.peer[peer].model_dump(exclude_none=True) if peer in self.peer else {}
        node = self.completeness.model_dump()
        return CompletenessPolicy(**{key: own.get(key, value) for key, value in node.items()})

    def rules(self) -> RuleSet:
        """The rules, checked against the names there are. Raises ConfigError with the first problem."""
        return self._rules_of(enumerate(self.rule, start=1))

    def rule_problems(self) -> Iterator[ConfigError]:
        """What is wrong with each rule by itself or, where nothing is, with all of them together."""
        alone = [((number, table),) for number, table in enumerate(self.rule, start=1)]
        problems = [problem for one in alone if (problem := self._problem_of(one)) is not None]
        together = None if problems else self._problem_of(tuple(enumerate(self.rule, start=1)))
        yield from problems if together is None else (together,)

    def _problem_of(self, tables: Iterable[tuple[int, Mapping[str, Any]]]) -> ConfigError | None:
        try:
            self._rules_of(tables)
        except ConfigError as error:
            return error
        return None

    def _with_needs(self, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """A `[[rule]]` whose `needs`, where it names them, are the matches of `[need.NAME]`."""
        names = table.get("needs")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return table
        for name in names:
            if name not in self.need:
                hint = nearest_word(name, self.need) if self.need else "add a table [need.NAME] with match = { ... }"
                raise ConfigError(f"rule {table.get('name')!r}: needs: there is no [need.{name}]", hint)
        return {**table, "needs": {name: self.need[name].match for name in names}}

    def _rules_of(self, tables: Iterable[tuple[int, Mapping[str, Any]]]) -> RuleSet:
        registry = default_registry(self.bundles)
        destinations = {name: destination.peer for name, destination in self.destination.items()}
        specs = [rule_spec(self._with_needs(table), number) for number, table in tables]
        try:
            names = registry.names()
        except EngineError as error:
            raise ConfigError(str(error), error.hint) from None
        ruleset = load_rules(specs, destinations, names, tuple(self.peer))
        return held_to_engines(ruleset, registry)

    def unusable_engines(self) -> tuple[UnusableEngine, ...]:
        """Engines of the rules that are installed here and damaged: no mistake in the configuration. Nothing where the
        rules themselves are wrong."""
        try:
            return unusable_engines(self.rules(), default_registry(self.bundles))
        except ConfigError:
            return ()


def find_config(option: Path | None = None) -> Path:
    """The configuration file: `option`, else $DICOMNODE_CONFIG, else ./dicomnode.toml. Raises ConfigError if absent."""
    named = option or (Path(text) if (text := os.environ.get("DICOMNODE_CONFIG")) else None)
    path = named or DEFAULT_FILE
    if not path.is_file():
        raise ConfigError(
            f"there is no configuration file {path}",
            "check --config and $DICOMNODE_CONFIG"
            if named
            else "write one with: dicomnode init (or name one: --config FILE)",
        )
    return path


def has_config(option: Path | None = None) -> bool:
    """Whether a configuration was named, or lies here: for commands that can do without."""
    return bool(option or os.environ.get("DICOMNODE_CONFIG") or DEFAULT_FILE.is_file())


def load_config(path: Path, *, rules_matter: bool = True) -> Config:
    """Read and check the file. Raises ConfigError with the first problem; `examine` gives all of them.

    rules_matter  False: rules are left out, and with them what is wrong in them
    """
    config, problems = examine(path, rules_matter=rules_matter)
    if config is None or problems:
        more = f" (and {len(problems) - 1} more: see `dicomnode check`)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}", problems[0].hint)
    return config


def examine(path: Path, *, rules_matter: bool = True) -> tuple[Config | None, tuple[ConfigError, ...]]:
    """Read the file and find all its problems. The Config is None where it could not be built at all."""
    try:
        table = _read(path)
        config = _build(path, table if rules_matter else {**table, "rule": ()})
    except ConfigError as error:
        return None, (error,)
    except ValidationError as error:
        return None, tuple(_explain(path, problem) for problem in error.errors(include_url=False))
    return config, tuple(ConfigError(f"{path}: {problem}", problem.hint) for problem in _cross_check(config))


def _read(path: Path) -> Mapping[str, Any]:
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", _toml_hint(text, str(error))) from None
    if isinstance(table.get("rule"), Mapping):
        raise ConfigError(f"{path}: [rule] is one table, rules are a list", _TWO_BRACKETS)
    return table


def _toml_hint(text: str, error: str) -> str:
    if _ONE_BRACKET.search(text):
        return _TWO_BRACKETS
    if error.startswith("Cannot "):  # declare ... twice, overwrite a value
        return "a key or a [section] stands there twice: keep one of them"
    return "text goes in quotes; [sections] stand alone on a line"


def _build(path: Path, table: Mapping[str, Any]) -> Config:
    _refuse_unknown_environment()
    try:
        config = Config(**{**table, "_secrets_dir": os.environ.get("DICOMNODE_SECRETS")})
    except SettingsError as error:
        raise ConfigError(
            f"environment or secret files: {error}", "names are DICOMNODE_SECTION__KEY, as in DICOMNODE_NODE__PORT"
        ) from None
    node = config.node
    folders = {"data": path.parent / node.data.expanduser()}
    if node.files is not None:
        folders["files"] = path.parent / node.files.expanduser()
    absolute = {name: folder.absolute() for name, folder in folders.items()}
    secured = {
        name: (path.parent / file.expanduser()).absolute()
        for name in ("certificate", "key", "ca")
        if (file := getattr(config.tls, name)) is not None
    }
    keys = tuple((path.parent / file.expanduser()).absolute() for file in config.engines.trusted_keys)
    update = {
        "node": node.model_copy(update=absolute),
        "tls": config.tls.model_copy(update=secured),
        "engines": config.engines.model_copy(update={"trusted_keys": keys}),
    }
    config = config.model_copy(update=update)
    config._source = path.absolute()
    return config


def _refuse_unknown_environment() -> None:
    """A misspelt DICOMNODE_SECTION__KEY would else be ignored in silence."""
    for variable in os.environ:
        section, separator, _ = variable.removeprefix(_PREFIX).partition("__")
        if variable.startswith(_PREFIX) and separator and section.lower() not in Config.model_fields:
            raise ConfigError(
                f"environment variable {variable}: no section {section.lower()!r}",
                _nearest(section.lower(), Config.model_fields),
            )


def _explain(path: Path, problem: Mapping[str, Any]) -> ConfigError:
    """One pydantic problem as a ConfigError. pydantic's own text never repeats the value, which may be a secret."""
    location = tuple(str(part) for part in problem["loc"] if part != "[key]")
    if isinstance(problem["loc"][-1], int) and len(location) > 2:  # one of several values
        location = location[:-1]
    place = f"[{'.'.join(location[:-1])}] {location[-1]}" if len(location) > 1 else f"[{location[0]}]"
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"{path}: {place}: unknown key", _nearest(location[-1], _known_keys(location[:-1])))
    if problem["type"] == "missing":
        return ConfigError(f"{path}: {place}: missing", f"add {location[-1]} = ... to [{'.'.join(location[:-1])}]")
    what = _IN_TOML.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return ConfigError(f"{path}: {place}: {what[:1].lower()}{what[1:]}", _meaning(location))


def _model_at(location: tuple[str, ...]) -> type[BaseModel] | None:
    """The model that the table at `location` is read into, or None where there is none."""
    model: type[BaseModel] = Config
    names = iter(location)
    for name in names:
        field = model.model_fields.get(name)
        if field is None:
            return None
        annotation: Any = field.annotation
        if typing.get_origin(annotation) is Mapping:  # [peer.NAME]: the NAME is free
            annotation = typing.get_args(annotation)[1]
            next(names, None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _known_keys(location: tuple[str, ...]) -> tuple[str, ...]:
    model = _model_at(location)
    return tuple(model.model_fields) if model is not None else ()


def _meaning(location: tuple[str, ...]) -> str:
    model = _model_at(location[:-1])
    field = model.model_fields.get(location[-1]) if model is not None else None
    return (
        f"{location[-1]} is: {field.description}"
        if field is not None and field.description
        else "see docs/configuration.md"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names) or 'none'}"


def _cross_check(config: Config) -> Iterator[ConfigError]:
    """What no single value shows to be wrong."""
    if len(set(config.local_ae_titles)) != len(config.local_ae_titles):
        yield ConfigError("[node] ae_titles: an AE title stands there twice", "name each once; ae_title counts too")
    if config.node.database is not None and config.node.name is None:
        yield ConfigError(
            "[node] name: missing, and there is a database",
            "give each machine that shares the database a name of its own, and keep it",
        )
    yield from _check_bucket(config)
    yield from _check_tls(config)
    yield from _check_keys(config)
    yield from _check_peers(config)
    yield from _check_destinations(config)
    yield from config.rule_problems()


def _check_bucket(config: Config) -> Iterator[ConfigError]:
    bucket = config.bucket
    if bucket.url is None:
        for name in sorted(bucket.model_fields_set - {"url"}):
            yield ConfigError(f"[bucket] {name}: there is no url", "set bucket.url, or remove this")
    if (bucket.access_key is None) != (bucket.secret_key is None):
        yield ConfigError("[bucket]: access_key and secret_key belong together", "set both, or neither")


def _check_tls(config: Config) -> Iterator[ConfigError]:
    tls = config.tls
    if tls.certificate is None:
        for name in ("key", "only", "port"):
            if name in tls.model_fields_set and getattr(tls, name):
                yield ConfigError(f"[tls] {name}: there is no certificate", "set tls.certificate, or remove this")
    elif tls.ca is None:
        yield ConfigError("[tls] ca: missing", "name the file with the CAs of your peers: whom shall we believe?")
    if tls.certificate is not None and not tls.only and tls.port == config.node.port:
        yield ConfigError("[tls] port: the same as node.port", "TLS has a port of its own, as a rule 2762")
    for name, peer in config.peer.items():
        if peer.tls and peer.host is None and not peer.certificate:
            yield ConfigError(
                f"[peer.{name}] tls: nothing says which certificate is its own", "set certificate, or host"
            )


def _check_keys(config: Config) -> Iterator[ConfigError]:
    for path in config.engines.trusted_keys:
        try:
            read_public_key(path)
        except EngineError as error:
            yield ConfigError(f"[engines] trusted_keys: {error}", error.hint)


def _check_peers(config: Config) -> Iterator[ConfigError]:
    seen: dict[tuple[str, str | None], str] = {}
    for name, peer in config.peer.items():
        other = seen.setdefault((peer.ae_title, peer.host), name)
        if other != name:
            yield ConfigError(
                f"[peer.{name}]: the same ae_title and host as [peer.{other}]",
                "one application is one peer: remove one of them",
            )
        policy = config.completeness_of(name)
        if policy.deadline_s < max(policy.quiet_s, policy.released_quiet_s):
            yield ConfigError(
                f"[peer.{name}] deadline_s: shorter than the quiet time: {policy.deadline_s:g} s, where quiet_s is "
                f"{policy.quiet_s:g} and released_quiet_s {policy.released_quiet_s:g}",
                "raise deadline_s or lower the others, there or in [completeness]",
            )


def _check_destinations(config: Config) -> Iterator[ConfigError]:
    for name, destination in config.destination.items():
        place = f"[destination.{name}]"
        if destination.commit and destination.proof not in (ProofKind.AUTO, ProofKind.COMMITMENT):
            yield ConfigError(f'{place} commit: contradicts proof = "{destination.proof}"', "keep one of the two")
        if destination.calling_ae not in ("node", "sender"):
            try:
                ae_title(destination.calling_ae)
            except ValueError as error:
                yield ConfigError(f"{place} calling_ae: {error}", 'write "node", "sender" or an AE title')
        if destination.retry.maximum_s < destination.retry.initial_s:
            yield ConfigError(
                f"{place} retry.maximum_s: below initial_s", "the wait grows from initial_s up to maximum_s"
            )
        yield from _check_reachable(config, name, "peer", destination.peer)
        if destination.ask_peer is not None:
            yield from _check_reachable(config, name, "ask_peer", destination.ask_peer)


def _check_reachable(config: Config, destination: str, key: str, name: str) -> Iterator[ConfigError]:
    """Whether we can call the peer that a destination names."""
    peer = config.peer.get(name)
    if peer is None:
        yield ConfigError(f"[destination.{destination}] {key}: there is no [peer.{name}]", _nearest(name, config.peer))
    elif peer.host is None or peer.port is None:
        lacking = "host" if peer.host is None else "port"
        yield ConfigError(f"[peer.{name}]: {lacking} is missing", f"add it: destination {destination!r} sends there")
