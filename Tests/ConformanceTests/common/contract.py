"""openapi/openapi.yaml against what is really served: each answer's status, headers and body, each request's body."""

import json
import pathlib

import jsonschema
import yaml

FILE = pathlib.Path(__file__).resolve().parent.parent.parent.parent / "openapi/openapi.yaml"
# Headers of these names are ours and must be described; the rest is HTTP's own.
OURS = ("x-", "openai-", "retry-", "request-id", "allow")


class Contract:
    def __init__(self):
        self.document = yaml.safe_load(FILE.read_text())
        # Statuses that were seen and found described, by operation: for a look at what the suite covers.
        self.seen: set[tuple[str, int]] = set()

    def check(self, response) -> None:
        """An event hook of the HTTP client. Leaves streams unread."""
        operation = self._operation(response.request)
        content_type = response.headers["content-type"].split(";")[0]
        if operation is None:
            assert response.status_code in (404, 405), f"{response.request.url} is served and not described"
            response.read()
            return self._validate(response.json(), {"$ref": "#/components/schemas/Error"})
        described = operation["responses"]
        status = str(response.status_code)
        answer = self._resolve(described.get(status) or described[f"{status[0]}XX"])
        self.seen.add((operation["operationId"], response.status_code))
        self._check_headers(response.headers, answer["headers"])
        schema = answer["content"][content_type]["schema"]
        if content_type == "application/json":
            response.read()
            self._validate(response.json(), schema)
        if response.status_code == 200 and "requestBody" in operation:
            body = json.loads(response.request.content)
            assert (content_type == "text/event-stream") == bool(body.get("stream"))
            self._validate(body, operation["requestBody"]["content"]["application/json"]["schema"])

    def _operation(self, request) -> dict | None:
        path, paths = request.url.path, self.document["paths"]
        if path not in paths and path.startswith("/v1/models/"):
            path = "/v1/models/{id}"
        return paths.get(path, {}).get(request.method.lower())

    def _resolve(self, item: dict) -> dict:
        while "$ref" in item:
            target = self.document
            for part in item["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            item = target
        return item

    def _check_headers(self, headers, described: dict) -> None:
        for name, header in described.items():
            assert name in headers or not self._resolve(header).get("required"), f"{name} is missing"
        for name, value in headers.items():
            if not name.lower().startswith(OURS):
                continue
            assert name.lower() in described, f"{name} is sent and not described"
            schema = self._resolve(described[name.lower()])["schema"]
            self._validate(int(value) if schema.get("type") == "integer" else value, schema)

    def _validate(self, value, schema: dict) -> None:
        jsonschema.Draft202012Validator({**schema, "components": self.document["components"]}).validate(value)
