"""The HTTP API: routes, tokens, bodies, and the order in which Discord looks at a request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

from tests.loopback import errors, rules
from tests.loopback.commands import without_localizations
from tests.loopback.log import Request
from tests.loopback.messages import Message, Upload
from tests.loopback.world import DM_CHANNEL, Channel, snowflake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.loopback.faults import Fault
    from tests.loopback.server import LoopbackDiscord

PREFIX = "/api/v10"
_BODY_LIMIT = 128 * 1024 * 1024
_TOKEN_IN_PATH = ("/interactions/", "/webhooks/")

Answer = tuple[int, Any]


class Api:
    """Answers HTTP requests out of the stores of a LoopbackDiscord."""

    def __init__(self, discord: LoopbackDiscord) -> None:
        self._discord = discord

    def application(self) -> web.Application:
        """Return the aiohttp application: the API, the gateway's addresses and the files."""
        app = web.Application(client_max_size=_BODY_LIMIT)
        me = "/applications/{application}"
        scopes = (f"{me}/commands", f"{me}/guilds/{{guild}}/commands")
        routes: list[tuple[str, str, Callable[[Request, Mapping[str, str]], Answer]]] = [
            ("GET", "/users/@me", self._bot_user),
            ("GET", "/users/{user}", self._user),
            ("POST", "/users/@me/channels", self._open_dm),
            ("GET", "/oauth2/applications/@me", self._application),
            ("GET", "/applications/@me", self._application),
            ("GET", "/applications/{application}/emojis", lambda *_: (200, {"items": []})),
            ("GET", "/gateway", lambda *_: (200, {"url": self._discord.gateway.address})),
            ("GET", "/gateway/bot", self._gateway_bot),
            ("POST", "/interactions/{interaction}/{token}/callback", self._callback),
            ("POST", "/webhooks/{application}/{token}", self._follow_up),
            ("GET", "/webhooks/{application}/{token}/messages/{message}", self._webhook_message),
            ("PATCH", "/webhooks/{application}/{token}/messages/{message}", self._webhook_edit),
            ("DELETE", "/webhooks/{application}/{token}/messages/{message}", self._webhook_delete),
            ("GET", "/channels/{channel}", self._channel),
            ("POST", "/channels/{channel}/typing", self._typing),
            ("GET", "/channels/{channel}/messages", self._history),
            ("POST", "/channels/{channel}/messages", self._send),
            ("GET", "/channels/{channel}/messages/{message}", self._fetch),
            ("PATCH", "/channels/{channel}/messages/{message}", self._edit),
            ("DELETE", "/channels/{channel}/messages/{message}", self._delete),
        ]
        for scope in scopes:
            routes += [
                ("GET", scope, self._commands),
                ("PUT", scope, self._sync),
                ("POST", scope, self._create_command),
                ("GET", f"{scope}/{{command}}", self._command),
                ("PATCH", f"{scope}/{{command}}", self._edit_command),
                ("DELETE", f"{scope}/{{command}}", self._delete_command),
            ]
        for method, path, endpoint in routes:
            app.router.add_route(method, PREFIX + path, self._handler(endpoint))
        app.router.add_route("*", PREFIX + "/{rest:.*}", self._handler(self._nowhere))
        app.router.add_get("/attachments/{channel}/{attachment}/{filename}", self._file)
        app.router.add_get("/", self._discord.gateway.serve)
        app.router.add_get("/resume", self._discord.gateway.serve)
        return app

    # One request, from its arrival to its answer

    def _handler(
        self, endpoint: Callable[[Request, Mapping[str, str]], Answer]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(received: web.Request) -> web.StreamResponse:
            loop = asyncio.get_running_loop()
            path = received.path.removeprefix(PREFIX)
            query, headers = dict(received.query), dict(received.headers)
            request = Request(loop.time(), received.method, path, query=query, headers=headers)
            self._discord.requests.append(request)
            fault = request.fault = self._discord.faults.take(request.method, path)
            self._discord.changes.announce()  # it has come, and perhaps hit a fault
            if fault is not None and fault.delay:
                await asyncio.sleep(fault.delay)
            if fault is not None and not fault.after and (fault.drop or fault.status):
                response = self._failure(received, request, fault)
            else:
                response = await self._answer(received, request, endpoint)
                if fault is not None and fault.after:
                    response = self._failure(received, request, fault)
            request.seconds = loop.time() - request.at
            self._discord.changes.announce()
            return response

        return handle

    def _failure(self, received: web.Request, request: Request, fault: Fault) -> web.StreamResponse:
        if fault.drop:
            request.status = None
            if received.transport is not None:
                received.transport.abort()
            return web.Response(status=500)  # written to nobody
        assert fault.status is not None
        body, headers = fault.answer()
        request.status, request.answer = fault.status, body
        return _json(body, fault.status, headers)

    async def _answer(
        self, received: web.Request, request: Request, endpoint: Callable[[Request, Mapping[str, str]], Answer]
    ) -> web.StreamResponse:
        api = self._discord.api_description
        operation = api.operation(request.method, request.path) if api is not None else None
        request.template = operation.template if operation is not None else None
        verdict = self._discord.rate_limits.ask(request.method, request.template or request.path, request.path)
        headers = verdict.headers
        try:
            self._authorize(request)
            if verdict.retry_after is not None:
                status: int = 429
                body: Any = {"message": "You are being rate limited.", "code": 0, "global": False}
                body["retry_after"] = round(verdict.retry_after, 3)
            else:
                await self._read(received, request)
                self._validate(request)
                self._discord.answering = request
                try:
                    status, body = endpoint(request, received.match_info)
                finally:
                    self._discord.answering = None
        except errors.ApiError as error:
            status, body = error.status, error.payload()
            self._note(request, error)
        except ConnectionError:
            raise  # the bot was killed while it spoke
        except Exception as error:
            self._discord.violate("loopback server's own fault", repr(error), request)
            raise
        request.status, request.answer = status, body
        if body is None:
            return web.Response(status=status, headers=headers)
        return _json(body, status, headers)

    def _authorize(self, request: Request) -> None:
        if request.path.startswith(_TOKEN_IN_PATH) or request.path == "/gateway":
            return
        if request.headers.get("Authorization") != f"Bot {self._discord.token}":
            raise errors.unauthorized()

    async def _read(self, received: web.Request, request: Request) -> None:
        """Read a JSON or multipart body."""
        if not received.can_read_body:
            return
        kind = received.content_type
        try:
            if kind == "multipart/form-data":
                async for part in await received.multipart():
                    if not isinstance(part, BodyPartReader) or part.name is None:
                        continue
                    content = bytes(await part.read(decode=True))
                    if part.filename is not None:
                        request.uploads.append(Upload(part.name, part.filename, content))
                    elif part.name == "payload_json":
                        request.body = json.loads(content)
            elif kind == "application/json":
                request.body = json.loads(await received.read())
            else:
                complaint = errors.Complaint((), "CONTENT_TYPE_INVALID", f"{kind} is not application/json")
                raise errors.invalid_form([complaint])
        except (ValueError, UnicodeDecodeError):
            raise errors.invalid_json() from None
        if rules.lone_surrogates(request.body):
            # Half a surrogate pair is no Unicode text: strict JSON parsers refuse the body that holds one.
            self._discord.violate("lone surrogate", "a string holds half a surrogate pair", request)

    def _validate(self, request: Request) -> None:
        api = self._discord.api_description
        if api is None or request.template is None:
            return
        operation = api.operation(request.method, request.path)
        assert operation is not None
        request.validated = True
        if not api.takes_body(operation):
            return
        body = {} if request.body is None else request.body
        fields = tuple(upload.field for upload in request.uploads)
        request.complaints = api.request_complaints(operation, body, files=fields)
        if request.complaints:
            raise errors.invalid_form(request.complaints)

    def _note(self, request: Request, error: errors.ApiError) -> None:
        """Make a violation of a refusal that no circumstance excuses."""
        if error.code == errors.INVALID_FORM_BODY:
            if not request.complaints:  # a rule's, not the description's
                request.complaints = list(_flatten(error.errors or {}))
            self._discord.violate("invalid body", "; ".join(map(str, request.complaints)), request)
        elif error.code in {50006, 50109, 40005}:
            self._discord.violate("invalid body", error.message, request)

    # Who and what the bot is

    def _bot_user(self, _request: Request, _match: Mapping[str, str]) -> Answer:
        extra = {"mfa_enabled": True, "locale": "en-US", "verified": True, "email": None}
        return 200, self._discord.bot.payload() | extra

    def _user(self, _request: Request, match: Mapping[str, str]) -> Answer:
        for user in self._discord.users.values():
            if str(user.id) == match["user"]:
                return 200, user.payload()
        raise errors.ApiError(404, 10013, "Unknown User")

    def _application(self, _request: Request, _match: Mapping[str, str]) -> Answer:
        discord = self._discord
        install = {"oauth2_install_params": {"scopes": ["applications.commands"], "permissions": "0"}}
        return 200, {
            "id": str(discord.application_id),
            "name": discord.bot.name,
            "icon": None,
            "description": "",
            "type": None,
            "bot": discord.bot.payload(),
            "summary": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "integration_types_config": {"0": install, "1": install},
            "verify_key": "0" * 64,
            "flags": 0,
            "flags_new": "0",
            "redirect_uris": [],
            "interactions_endpoint_url": None,
            "role_connections_verification_url": None,
            "owner": discord.owner.payload(),
            "approximate_guild_count": sum(guild.bot_is_member for guild in discord.guilds),
            "approximate_user_install_count": 0,
            "approximate_user_authorization_count": 0,
            "explicit_content_filter": 0,
            "team": None,
            "eligible_oauth2_scopes": [],
        }

    def _gateway_bot(self, _request: Request, _match: Mapping[str, str]) -> Answer:
        gateway = self._discord.gateway
        used = len(gateway.identifies)
        limit = {"total": 1000, "remaining": 1000 - used, "reset_after": 86_400_000}
        limit["max_concurrency"] = gateway.settings.max_concurrency
        return 200, {"url": gateway.address, "shards": gateway.settings.shards, "session_start_limit": limit}

    # Commands

    def _scope(self, match: Mapping[str, str]) -> int:
        if match["application"] != str(self._discord.application_id):
            raise errors.missing_access()
        return int(match.get("guild", 0))

    def _commands(self, request: Request, match: Mapping[str, str]) -> Answer:
        commands = self._discord.commands.all(self._scope(match))
        if request.query.get("with_localizations", "").lower() in {"1", "true"}:
            return 200, commands
        return 200, [without_localizations(command) for command in commands]

    def _sync(self, request: Request, match: Mapping[str, str]) -> Answer:
        bodies = request.body or []
        if complaints := rules.command_complaints(bodies):
            raise errors.invalid_form(complaints)
        return 200, self._discord.commands.replace_all(bodies, self._scope(match))

    def _create_command(self, request: Request, match: Mapping[str, str]) -> Answer:
        if complaints := rules.command_complaints([request.body]):
            raise errors.invalid_form(complaints)
        command, new = self._discord.commands.upsert(request.body, self._scope(match))
        return (201 if new else 200), command

    def _command(self, _request: Request, match: Mapping[str, str]) -> Answer:
        return 200, self._discord.commands.get(_number(match, "command"), self._scope(match))

    def _edit_command(self, request: Request, match: Mapping[str, str]) -> Answer:
        return 200, self._discord.commands.edit(_number(match, "command"), request.body, self._scope(match))

    def _delete_command(self, _request: Request, match: Mapping[str, str]) -> Answer:
        self._discord.commands.delete(_number(match, "command"), self._scope(match))
        return 204, None

    # Interactions

    def _callback(self, request: Request, match: Mapping[str, str]) -> Answer:
        desk = self._discord.desk
        body = request.body if isinstance(request.body, dict) else {}
        _, answer = desk.acknowledge(_number(match, "interaction"), match["token"], body, request.uploads)
        if request.query.get("with_response", "").lower() in {"1", "true"}:
            return 200, answer
        return 204, None

    def _follow_up(self, request: Request, match: Mapping[str, str]) -> Answer:
        desk = self._discord.desk
        message = desk.follow_up(_number(match, "application"), match["token"], request.body or {}, request.uploads)
        return 200, message.payload()  # an interaction's webhook always waits

    def _webhook_message(self, _request: Request, match: Mapping[str, str]) -> Answer:
        message = self._discord.desk.message(_number(match, "application"), match["token"], match["message"])
        return 200, message.payload()

    def _webhook_edit(self, request: Request, match: Mapping[str, str]) -> Answer:
        application, token, which = _number(match, "application"), match["token"], match["message"]
        message = self._discord.desk.edit(application, token, which, request.body or {}, request.uploads)
        return 200, message.payload()

    def _webhook_delete(self, _request: Request, match: Mapping[str, str]) -> Answer:
        self._discord.desk.delete(_number(match, "application"), match["token"], match["message"])
        return 204, None

    # Channels, with the bot's own token

    def _place(self, match: Mapping[str, str]) -> Channel:
        channel = self._discord.channels.get(_number(match, "channel"))
        if channel is None:
            raise errors.unknown_channel()
        if not channel.bot_is_there:
            raise errors.missing_access()
        return channel

    def _post(self, match: Mapping[str, str]) -> Message:
        channel = self._place(match)
        message = self._discord.messages.get(_number(match, "message"))
        if message.channel is not channel or message.ephemeral:  # no token but an interaction's sees those
            raise errors.unknown_message()
        return message

    def _channel(self, _request: Request, match: Mapping[str, str]) -> Answer:
        return 200, self._place(match).payload()

    def _open_dm(self, request: Request, _match: Mapping[str, str]) -> Answer:
        for user in self._discord.users.values():
            if str(user.id) == str(request.body["recipient_id"]):
                return 200, self._discord.dm(user).payload()
        raise errors.ApiError(400, 50033, "Invalid Recipient(s)")

    def _typing(self, _request: Request, match: Mapping[str, str]) -> Answer:
        self._place(match)
        return 204, None

    def _history(self, request: Request, match: Mapping[str, str]) -> Answer:
        channel = self._place(match)
        before = int(request.query.get("before", 1 << 63))
        everything = self._discord.messages.messages.values()
        there = [m for m in everything if m.channel is channel and not m.deleted and not m.ephemeral]
        newest_first = sorted((m for m in there if m.id < before), key=lambda m: -m.id)
        return 200, [m.payload() for m in newest_first[: int(request.query.get("limit", 50))]]

    def _send(self, request: Request, match: Mapping[str, str]) -> Answer:
        channel, messages = self._place(match), self._discord.messages
        body = request.body or {}
        draft = messages.draft(channel, body | {"flags": (body.get("flags") or 0) & ~(1 << 6)}, request.uploads)
        if complaints := messages.check(draft):
            raise errors.invalid_form(complaints)
        message = Message(snowflake(), channel, self._discord.bot, draft)
        messages.settle(message, draft)
        return 200, message.payload()

    def _fetch(self, _request: Request, match: Mapping[str, str]) -> Answer:
        return 200, self._post(match).payload()

    def _edit(self, request: Request, match: Mapping[str, str]) -> Answer:
        message, messages = self._post(match), self._discord.messages
        if message.author is not self._discord.bot:
            raise errors.not_the_author()
        draft = messages.draft(message.channel, request.body or {}, request.uploads, message.draft)
        if complaints := messages.check(draft):
            raise errors.invalid_form(complaints)
        messages.settle(message, draft)
        return 200, message.payload()

    def _delete(self, _request: Request, match: Mapping[str, str]) -> Answer:
        message = self._post(match)
        guild = message.channel.guild
        may_manage = guild is not None and guild.bot_permissions & 1 << 13
        if message.author is not self._discord.bot and (message.channel.kind == DM_CHANNEL or not may_manage):
            raise errors.missing_permissions()
        self._discord.messages.delete(message)
        return 204, None

    # Everything else

    def _nowhere(self, request: Request, _match: Mapping[str, str]) -> Answer:
        known = request.template is not None
        detail = "Discord has this endpoint, the loopback server not" if known else "there is no such endpoint"
        self._discord.violate("no endpoint", detail, request)
        raise errors.not_found()

    async def _file(self, received: web.Request) -> web.StreamResponse:
        attachment = self._discord.messages.files.get(int(received.match_info["attachment"]))
        if attachment is None:
            return web.Response(status=404)
        return web.Response(body=attachment.content, content_type=attachment.content_type or "application/octet-stream")


def _number(match: Mapping[str, str], key: str) -> int:
    if not match[key].isdecimal():
        complaint = errors.Complaint((f"{key}_id",), "NUMBER_TYPE_COERCE", f"{match[key]!r} is not snowflake.")
        raise errors.invalid_form([complaint])
    return int(match[key])


def _json(body: Any, status: int, headers: dict[str, str]) -> web.Response:
    # Discord names no charset, and discord.py reads as JSON only what is exactly of this type.
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers | {"Content-Type": "application/json"}
    )


def _flatten(tree: dict[str, Any], path: tuple[str, ...] = ()) -> list[errors.Complaint]:
    found = [errors.Complaint(path, error["code"], error["message"]) for error in tree.get("_errors", ())]
    for key, inner in tree.items():
        if key != "_errors":
            found += _flatten(inner, (*path, key))
    return found
