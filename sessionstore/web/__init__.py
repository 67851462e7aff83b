"""HTTP and WebSocket: ASGI, with Litestar for all that is not hot.

asgi             its types, and plain answers
backpressure     large answers that wait to be read, in all and of one caller
bodies           how many bytes of bodies at once
tokens           who holds which
logins           what browsers have for a token
shares           links to one session
refusal_log      a rate limit of log lines about refusals
forwarded        whom a proxy speaks for
gate             who may
connections      how many, of one address and in all
request_metrics  every request counted
openapi          parameters and bodies, described
openapi_models   the shapes of the answers
request          from a request to a call of the store
live             WebSocket and server-sent events
datasette_mount  /datasette/
metrics          Prometheus text
health           /health, /ready, /metrics
fast_path        the hot routes
telemetry        OTLP/HTTP: /v1/logs, /v1/metrics, /v1/traces
sharing          routes of these
usage            routes of what was used, what it cost, what came of it
transcripts      the lines of conversations
tar_stream       the members of a tar as it comes
imports          conversations from before
moving           a session taken over from another store
conversation_pages  pages of what was said
conversation_text  the same as Markdown, and as HTML
conversation     the route for it
checkpoints      the threads of LangGraph
push             routes of Web Push
control          what agents ask, what people answer and order
api              every other route
pages            the dashboard, the documentation
fleet            routes of a fleet, where there is one
server           the socket, the deadlines, the signals
"""
