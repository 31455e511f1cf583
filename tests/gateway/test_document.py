"""schemathesis over the OpenAPI document: no 500, no undocumented status, no other shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.gateway.conftest import Served

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def config(served: Served) -> str:
    """Ids that exist, so that requests get further than 404. Deletions get other ids."""
    with served.http() as http:
        conversation = http.post("/v1/conversations", json={}).json()["id"]
        body = {"model": "tools", "input": "hi", "conversation": conversation, "background": True}
        response = http.post("/v1/responses", json=body).json()["id"]
        http.post("/v1/responses", json={**body, "background": False})
        [*_, item] = http.get(f"/v1/conversations/{conversation}/items").json()["data"]
    digits = response.removeprefix("resp_")
    return f"""
[parameters]
"path.model" = "tools"
"path.conversation_id" = "{conversation}"
"path.conversation" = "{conversation}"
"path.response" = "{response}"
"query.wait" = 0
"path.turn_id" = "{digits[:3]}-{digits[3:]}"
"path.item" = "{item["id"]}"

[[operations]]
include-method = "DELETE"
[operations.parameters]
"path.conversation_id" = "none"
"path.conversation" = "none"
"path.response" = "none"
"path.item" = "none"
"""


@pytest.mark.timeout(900)
def test_no_answer_that_is_not_documented(served: Served, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(config(served))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", "schemathesis.toml", "run", f"{served.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {served.acme}"),
            *("--checks", ",".join(CHECKS)),
            *("--max-examples", "8", "--seed", "7", "--workers", "1"),
            *("--phases", "examples,coverage,fuzzing", "--request-timeout", "60"),
        ],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        cwd=tmp_path,
    )
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    gateway = served.stack.gateway
    assert gateway is not None
    assert "request.crashed" not in gateway.log.read_text()


def test_the_document_tells_what_there_is(http: httpx2.Client) -> None:
    document = http.get("/openapi.json").json()
    operations = [(method, path) for path, found in document["paths"].items() for method in found]
    assert len(operations) >= 24
    for method, path in operations:
        answers = document["paths"][path][method]["responses"]
        assert "HTTPValidationError" not in str(answers)
        for status in {"200", "202"} & set(answers):
            # A client made from the document knows what it gets.
            for content in answers[status]["content"].values():
                assert content["schema"] not in ({}, {"type": "object"}), (method, path)
        if path not in ("/", "/healthz", "/readyz"):
            assert {"400", "401", "413", "429", "500", "503"} <= set(answers)
            error = answers["401"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorBody"}
