"""What other programs say in words of their own, as drafts of events: a payload in, drafts out. Pure.

claude_code  the payloads of Claude Code's hooks
"""
