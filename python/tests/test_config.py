from __future__ import annotations

from pathlib import Path
from typing import Any

from synapse.module_api.errors import ConfigError
from twisted.trial.unittest import SynchronousTestCase

from ganglion_synapse.config import BridgeConfig, TcpAddress, parse_config
from ganglion_synapse.policy import FailureRule


class ConfigTest(SynchronousTestCase):
    def assert_error(self, config: Any, path: str, text: str) -> None:
        with self.assertRaises(ConfigError) as raised:
            parse_config(config)
        self.assertEqual(".".join(raised.exception.path or ()), path)
        self.assertIn(text, raised.exception.msg)

    def assert_rule_error(self, rule: Any, key: str, text: str) -> None:
        path = "on_failure.<item 0>" + (f".{key}" if key else "")
        self.assert_error({"socket": "/s", "on_failure": [rule]}, path, text)

    def token(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_a_socket_is_enough(self) -> None:
        self.assertEqual(parse_config({"socket": "/run/g.sock"}), BridgeConfig("/run/g.sock"))
        self.assertEqual(parse_config({"socket": "/run/g.sock"}).call_timeout, 2.0)

    def test_everything(self) -> None:
        token_file = self.token(b"geheim\n")
        rule = {"category": "spam_checker", "kind": ["overloaded", "not_running"], "origin": "federated", "then": "pass"}
        config = parse_config(
            {
                "tcp": "[::1]:8010",
                "token_file": token_file,
                "call_timeout": "500ms",
                "on_failure": [rule],
                "state_file": "/var/lib/g.json",
                "callbacks": ["on_new_event", "user_may_invite"],
            }
        )
        self.assertEqual(config.address, TcpAddress("::1", 8010))
        self.assertEqual(config.token, "geheim")
        self.assertEqual(config.call_timeout, 0.5)
        kinds = frozenset({"overloaded", "not_running"})
        expected = FailureRule("pass", categories=frozenset({"spam_checker"}), kinds=kinds, origin="federated")
        self.assertEqual(config.on_failure, (expected,))
        self.assertEqual(config.callbacks, ("user_may_invite", "on_new_event"))

    def test_the_token_is_never_shown(self) -> None:
        config = parse_config({"tcp": "localhost:1", "token_file": self.token(b"geheim")})
        self.assertNotIn("geheim", repr(config))
        self.assert_error({"socket": "/s", "token_file": self.token(b"geheim\xff")}, "token_file", "not UTF-8")

    def test_where_ganglion_listens_is_said_once(self) -> None:
        self.assert_error({}, "socket", "missing")
        self.assert_error({"socket": "/s", "tcp": "localhost:1"}, "tcp", "exclude")
        self.assert_error({"tcp": "localhost:1"}, "token_file", "requires a token")

    def test_unknown_keys_are_errors_with_a_near_name(self) -> None:
        self.assert_error({"socket": "/s", "call_timeot": "1s"}, "call_timeot", "did you mean call_timeout?")
        self.assert_rule_error({"thn": "pass"}, "thn", "did you mean then?")
        self.assert_error([], "", "expected a mapping, found a list")

    def test_values_that_are_none(self) -> None:
        for value in ("2", 2, "0s", "-1s", "1h", "9999999m"):
            self.assert_error({"socket": "/s", "call_timeout": value}, "call_timeout", "")
        for value in ("localhost", "localhost:", ":1", "h:0", "h:70000", "::1:5", 5):
            self.assert_error({"tcp": value}, "tcp", "")
        self.assert_error({"socket": 5}, "socket", "expected a text, found a number")
        self.assert_error({"socket": "/s", "token_file": "/nonexistent"}, "token_file", "No such file")
        self.assert_error({"socket": "/s", "token_file": self.token(b" \n")}, "token_file", "empty")

    def test_callbacks_have_to_exist(self) -> None:
        config = {"socket": "/s", "callbacks": ["on_new_event", "user_may_invit"]}
        self.assert_error(config, "callbacks.<item 1>", "did you mean user_may_invite?")
        self.assert_error({"socket": "/s", "callbacks": ["accept_make_join"]}, "callbacks.<item 0>", "never asks")
        self.assert_error({"socket": "/s", "callbacks": "on_new_event"}, "callbacks", "expected a list")

    def test_rules_are_checked_as_ganglion_checks_them(self) -> None:
        self.assert_rule_error({}, "then", "missing")
        self.assert_rule_error("pass", "", "expected a mapping")
        self.assert_rule_error({"then": "ignore"}, "then", "unknown word")
        self.assert_rule_error({"then": "pass", "kind": []}, "kind", "leave the key out to match all")
        self.assert_rule_error({"then": "pass", "kind": ["timeout"]}, "kind.<item 0>", "unknown kind")
        self.assert_rule_error({"then": "pass", "category": "spam_cheker"}, "category", "did you mean spam_checker?")
        self.assert_rule_error({"then": "pass", "origin": "remote"}, "origin", "unknown origin")
        self.assert_rule_error({"then": "deny", "callback": "is_user_expired"}, "then", "has no deny verdict")
