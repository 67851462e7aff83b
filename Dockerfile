# The session store: port 9000, all that it keeps in /var/claude-sessions, nothing to configure.
#
#     docker build -t session-store .
#     docker run -d -p 127.0.0.1:9000:9000 -v claude-sessions:/var/claude-sessions --read-only --tmpfs /tmp \
#         --cap-drop ALL --security-opt no-new-privileges --memory 1g --pids-limit 200 session-store
#
# The image's SQLite is Debian's. Before 3.51.3 SQLite could damage a database that two connections write or checkpoint
# at the same time (https://sqlite.org/wal.html#walresetbug); here one connection does both, and all others only read.

FROM python:3.12-slim AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY pyproject.toml constraints.txt ./
# --build-arg EXTRAS="notify push lake": messengers too, which bring 25 MB; Web Push, 30 MB; a lake, 160 MB;
# ask, which questions need, 170 MB.
ARG EXTRAS=
# hook-agent, of which the server needs the file, is copied below; http_ece is given out as source alone.
RUN python -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        needs = sum(map(project["optional-dependencies"].get, sys.argv[1:]), project["dependencies"]); \
        print(*(need for need in needs if not need.startswith("hook-agent")), sep="\n")' $EXTRAS > requirements.txt \
    && pip --python /venv/bin/python install --no-compile --only-binary :all: --no-binary http_ece \
        -c constraints.txt -r requirements.txt \
    # What comes along, and nothing here needs, goes again.
    && pip --python /venv/bin/python uninstall --yes pip setuptools \
    && find /venv -name '*.map' -delete
WORKDIR /app
COPY app.py schema.sql views.sql queries.sql dashboard.html hook_agent.py healthcheck.py ./
COPY sessionstore ./sessionstore
COPY dashboard ./dashboard
COPY containers/hook_agent.mjs containers/hook_agent_control.mjs containers/hook_agent_fleet.cjs containers/hook_agent_control.py \
    containers/hook_agent_control_graph.py containers/hook_agent_facts.py containers/hook_agent_fleet.py \
    containers/hook_agent_install.py containers/hook_agent_langchain.py containers/hook_agent_patterns.py \
    containers/hook_agent_restore.py containers/hook_agent_run.py containers/hook_agent_ship.py \
    containers/claude_session_store.py containers/langgraph_checkpointer.py \
    ./containers/
COPY export ./export
COPY lake ./lake
# Nothing can be compiled later: the image runs with a file system that cannot be written, as a user who may not.
RUN python -m compileall -q -j 0 /venv/lib /app

FROM python:3.12-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent store \
    && install -d -o store -g store -m 0700 /var/claude-sessions \
    && install -d -o store -g store -m 0755 /run/session-store
COPY --from=packages /venv /venv
COPY --from=packages /app /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 SESSIONS_HOST=0.0.0.0 SESSIONS_DIR=/var/claude-sessions
WORKDIR /app
USER 10001:10001
VOLUME /var/claude-sessions
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
    CMD ["python", "-I", "-S", "healthcheck.py"]
CMD ["python", "app.py"]
