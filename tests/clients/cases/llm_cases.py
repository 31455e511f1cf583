"""The `llm` command and its Python API, with models of `extra-openai-models.yaml`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import BASE, KEY, case, contains, main

HOME = Path(tempfile.mkdtemp(prefix="llm-"))
(HOME / "extra-openai-models.yaml").write_text(
    f"""- model_id: shop
  model_name: plain
  api_base: "{BASE}"
  api_key_name: shop
  supports_tools: true
  supports_schema: true
"""
)
(HOME / "keys.json").write_text(f'{{"shop": "{KEY}"}}')
os.environ["LLM_USER_PATH"] = str(HOME)


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("llm")), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@case("quickstart")
def prompt() -> None:
    contains(llm("-m", "shop", "Ten fun names for a pet pelican"), "ack: Ten fun names")


@case("streaming")
def without_streaming() -> None:
    contains(llm("-m", "shop", "--no-stream", "hello"), "ack: hello")


@case("instructions")
def system_prompt() -> None:
    contains(llm("-m", "shop", "-s", "Answer as a sea captain", "hi"), "sea captain")


@case("multi-turn")
def continued() -> None:
    llm("-m", "shop", "first message")
    contains(llm("-c", "second message"), "users=2")


@case("parameters")
def options() -> None:
    contains(llm("-m", "shop", "-o", "temperature", "0.5", "hi"), "temperature=0.5")


@case("structured output")
def schema() -> None:
    contains(llm("-m", "shop", "--schema", "name, age int", "Jason is 25, named Jason"), "Jason")


@case("tools")
def tools() -> None:
    code = "def weather(city: str) -> str:\n    'Weather.'\n    return 'sunny in ' + city"
    answer = llm("-m", "shop", "--functions", code, "What is the weather in Paris?")
    contains(answer, "sunny in Paris")


@case("quickstart")
def python_api() -> None:
    import llm as package

    contains(package.get_model("shop").prompt("Five names").text(), "ack: Five names")


if __name__ == "__main__":
    main()
