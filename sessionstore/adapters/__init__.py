"""What other programs say in words of their own: a payload in, drafts of events or lines of a batch out. Pure.

claude_code  the payloads of Claude Code's hooks
otlp_values  a message of OpenTelemetry's, in JSON or protobuf
otlp_levels  a request of it, down to its records
otlp         these records, made flat
telemetry    their records, as lines of a batch
transcripts  lines of conversations: what they used
import_paths  which file of a program is what
conversation  these lines, and events, as messages that people read
retelling    lines of conversations: what hooks would have told
"""
