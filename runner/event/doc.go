// Package event is the one typed stream of what happens in a run. The terminal,
// the JSON lines, the audit log and the summary are handlers of it, so that they
// cannot disagree. It takes no decision, reads no environment and opens no file.
//
// # Contract
//
// An envelope in JSON is one object:
//
//	{"data":{...},"kind":"run.started","run":"<id>","seq":1,"time":"2026-11-23T15:22:40.1Z"}
//
// seq counts from 1 without gaps; time is RFC 3339 in UTC; kind names the type of
// data. Field names are snake_case. Fields of data and kinds are added, never renamed
// or removed: a reader ignores what it does not know. Durations are integers of
// nanoseconds (*_ns), sizes are bytes, digests are lower-case hex of SHA-256.
// "clipped":true marks an envelope with strings or lists shortened to fit MaxLine.
//
// Names, paths and addresses that the sandbox reports are hostile text. JSON
// escapes them (bytes that are not UTF-8 become U+FFFD; changes.json keeps the
// exact bytes) and everything shown to a person goes through [Printable].
package event
