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
        # Where in the document a property of an answer is described that an answer really had.
        self.carried: set[str] = set()

    def check(self, response) -> None:
        """An event hook of the HTTP client. Leaves streams unread."""
        operation = self._operation(response.request)
        content_type = response.headers["content-type"].split(";")[0]
        if operation is None:
            assert response.status_code in (404, 405), f"{response.request.url} is served and not described"
            response.read()
            error = {"$ref": "#/components/schemas/Error"}
            self._note(response.json(), error, "")
            return self._validate(response.json(), error)
        described = operation["responses"]
        status = str(response.status_code)
        answer = self._resolve(described.get(status) or described[f"{status[0]}XX"])
        self.seen.add((operation["operationId"], response.status_code))
        self._check_headers(response.headers, answer["headers"])
        schema = answer["content"][content_type]["schema"]
        if content_type == "application/json":
            response.read()
            self._validate(response.json(), schema)
            self._note(response.json(), schema, content_type)
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

    # Properties of answers.

    def described(self) -> set[str]:
        """Every property that the document gives to an answer in JSON: `Usage.total_tokens`, `Model.id`."""
        found: set[str] = set()
        for path in self.document["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    content = self._resolve(response)["content"]
                    if "application/json" in content:
                        self._walk(content["application/json"]["schema"], "", found)
        return found

    def _parts(self, schema: dict, place: str):
        """The schemas that one stands for, with the name that their properties go under."""
        if "$ref" in schema:
            place = schema["$ref"].rsplit("/", 1)[1]
            schema = self._resolve(schema)
        yield schema, place
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, ()):
                yield from self._parts(part, place)

    def _walk(self, schema: dict, place: str, found: set[str]) -> None:
        for part, at in self._parts(schema, place):
            for name, inner in part.get("properties", {}).items():
                found.add(f"{at}.{name}")
                self._walk(inner, f"{at}.{name}", found)
            if "items" in part:
                self._walk(part["items"], at, found)

    def _note(self, value, schema: dict, place: str) -> None:
        for part, at in self._parts(schema, place):
            if isinstance(value, dict):
                for name, inner in part.get("properties", {}).items():
                    if name in value:
                        self.carried.add(f"{at}.{name}")
                        self._note(value[name], inner, f"{at}.{name}")
            if isinstance(value, list) and "items" in part:
                for element in value:
                    self._note(element, part["items"], at)
