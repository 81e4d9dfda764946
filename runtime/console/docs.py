"""/docs and /openapi.json: the API described, for people and for programs.

The page is made from the OpenAPI document here, with no script and nothing
loaded from elsewhere, so it reads the same on a machine without a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2024;background:#fff}h1{font-size:1.5rem}h2{margin-top:2rem;font-size:1.1rem;
border-bottom:1px solid #ddd}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:#f4f5f7;padding:.7rem;overflow:auto}summary{cursor:pointer;padding:.25rem 0}
summary b{display:inline-block;width:4.5rem}table{border-collapse:collapse}
td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e6e8ea;background:#16181b}pre{background:#23262b}
h2{border-color:#444}}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"
METHODS: Final = ("get", "post", "patch", "put", "delete")
EXAMPLE_DEPTH_MAX: Final = 6

router = APIRouter(tags=["description"])


@router.get("/openapi.json", response_model=dict[str, Any], summary="This API, for programs")
async def openapi(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


@router.get("/docs", response_class=HTMLResponse, summary="This API, for people")
async def docs(request: Request) -> Response:
    return HTMLResponse(render(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


def render(spec: Mapping[str, Any]) -> str:
    """The OpenAPI document as one page of HTML."""
    info = spec["info"]
    sections: dict[str, list[str]] = {}
    for path, operations in spec["paths"].items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                html = "".join(_operation(spec, method, path, operation))
                sections.setdefault(operation.get("tags", ["other"])[0], []).append(html)
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}'
        f"</title><style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info.get('description', ''))} "
        f'<a href="/openapi.json">openapi.json</a></p>{body}</html>'
    )


def _operation(
    spec: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[str]:
    summary = escape(operation.get("summary", ""))
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {summary}"
    yield f"<details><summary>{head}</summary>"
    if operation.get("parameters"):
        rows = "".join(_parameter(parameter) for parameter in operation["parameters"])
        yield f"<table><tr><th>parameter<th>in<th>type<th>{rows}</table>"
    schema = _json_schema(operation.get("requestBody", {}))
    if schema:
        yield f"<p>Body</p><pre>{_pretty(example(spec, schema))}</pre>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<p>{escape(status)} {escape(answer.get('description', ''))}</p>"
        schema = _json_schema(answer)
        if schema:
            yield f"<pre>{_pretty(example(spec, schema))}</pre>"
    yield "</details>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    schema = parameter.get("schema", {})
    kinds = [schema, *schema.get("anyOf", [])]
    names = [str(kind["type"]) for kind in kinds if kind.get("type") not in (None, "null")]
    about = parameter.get("description") or schema.get("description") or ""
    need = "required" if parameter.get("required") else ""
    cells = [parameter["name"], parameter["in"], " or ".join(names), f"{need} {about}".strip()]
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)


def _json_schema(content: Mapping[str, Any]) -> Any:
    return content.get("content", {}).get("application/json", {}).get("schema")


def _pretty(value: object) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False))


def example(spec: Mapping[str, Any], schema: Mapping[str, Any], depth: int = 0) -> Any:
    """What a value of a schema looks like: its own example, else one made of its parts."""
    if "$ref" in schema and "examples" not in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    return _made(spec, schema, depth + 1) if depth < EXAMPLE_DEPTH_MAX else "…"


def _made(spec: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> Any:
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return example(spec, schema[key][0], depth)
    if schema.get("type") == "array":
        return [example(spec, schema.get("items", {}), depth)]
    if "properties" in schema:
        fields = schema["properties"].items()
        return {name: example(spec, field, depth) for name, field in fields}
    return schema.get("type", "any")
