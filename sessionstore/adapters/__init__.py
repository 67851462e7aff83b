"""Foreign protocols: payload in, lines of a batch out. Pure: nothing here opens a file or a socket.

otlp       OpenTelemetry's requests, decoded
telemetry  their records, as events
"""
