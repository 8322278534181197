package policy

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// hostChars are what a name of a host may be written with; the loader knows more than the schema can say.
const hostChars = `[^\s.:/@%*\[\]\\?#"'(){}<>|^,;&=+$!~` + "`" + `]`

const portForm = `[1-9][0-9]{0,4}`

func networkKind() kind[Network] {
	return object(
		key("capture", oneOf(CaptureRequired, CaptureAuto), func(n *Network) *Capture { return &n.Capture },
			"required (default): an engine where not every dial can be decided and recorded is refused. "+
				"auto: on such an engine (gVisor, restricted pods) what is not allowed still fails, but dials to addresses and UDP fail unrecorded."),
		key("allow", list(allowKind(), 500).checked(checkAllowList), func(n *Network) *[]Rule { return &n.Allow },
			"What may be reached: bundles (npm), hosts (example.org, example.org:8443, *.example.org), or entries with more detail."),
		key("deny", list(denyKind(), 500), func(n *Network) *[]Rule { return &n.Deny },
			"What may not be reached, whatever `allow` says."),
		key("limits", limitsKind(), func(n *Network) *Limits { return &n.Limits }, "Limits of the whole run."),
	)
}

func shortRuleKind() kind[Rule] {
	form := nameRule{
		strings.Join(Bundles(), "|") + `|(?:\*\.)?` + hostChars + `+(?:\.` + hostChars + `+)+(?::` + portForm + `)?|\[[0-9A-Fa-f:.]+\](?::` + portForm + `)?`,
		"a bundle, a host or host:port",
	}
	return text(form, parseShortRule)
}

func hostKind() kind[Host] {
	return text(nameRule{`(?:\*\.)?` + hostChars + `+(?:\.` + hostChars + `+)*|[0-9A-Fa-f:.]+`, "a host such as example.org"}, ParseHost)
}

func httpRuleKind() kind[HTTPRule] {
	return text(nameRule{`(?:\*|[A-Z][A-Z-]{0,19}) /[^\s?#\\]{0,980}`, `a rule such as "GET /v1/**"`}, ParseHTTPRule)
}

func allowKind() kind[Rule] {
	entry := object(
		key("host", hostKind(), func(r *Rule) *Host { return &r.Host }, `Name, "*.name" for all names below it, or address.`).must(),
		key("port", portsKind(), func(r *Rule) *[]PortRange { return &r.Ports }, "Port, range of ports, or a list of them. Default 443."),
		key("tcp", boolean(), func(r *Rule) *bool { return &r.TCP }, "true lets any protocol through, without a look at it. It needs a port."),
		key("rules", list(httpRuleKind(), 200), func(r *Rule) *[]HTTPRule { return &r.HTTP },
			`Only these requests: METHOD /path, with * within a segment and ** for any number of segments.`),
		key("private", boolean(), func(r *Rule) *bool { return &r.Private }, "true lets the name have a private, loopback or link-local address."),
		key("to", text(nameRule{`\[[0-9A-Fa-f:.]+\]:` + portForm + `|[^\s:\[\]/@%]+:` + portForm, "host:port"}, parseEndpoint),
			func(r *Rule) *Endpoint { return &r.To }, "Where the runner connects to instead: a service of the job or of the developer's machine, as host:port."),
		key("limits", limitsKind(), func(r *Rule) *Limits { return &r.Limits }, "Limits of this host."),
	).checked(checkAllowEntry)
	return either("a bundle, a host, or an entry with a host", map[yaml.Kind]kind[Rule]{
		yaml.ScalarNode:  shortRuleKind(),
		yaml.MappingNode: entry,
	}).checked(finishRule(PortRange{443, 443}))
}

func denyKind() kind[Rule] {
	entry := object(
		key("host", hostKind(), func(r *Rule) *Host { return &r.Host }, `Name, "*.name" for all names below it, or address.`).must(),
		key("port", portsKind(), func(r *Rule) *[]PortRange { return &r.Ports }, "Port, range of ports, or a list of them. Default: all."),
		key("rules", list(httpRuleKind(), 200), func(r *Rule) *[]HTTPRule { return &r.HTTP }, "Only these requests are denied."),
	).checked(checkDenyEntry)
	return either("a bundle, a host, or an entry with a host", map[yaml.Kind]kind[Rule]{
		yaml.ScalarNode:  shortRuleKind(),
		yaml.MappingNode: entry,
	}).checked(finishRule(PortRange{1, allPorts}))
}

// portsKind is 5432, "8000-8010", or a list of such.
func portsKind() kind[[]PortRange] {
	single := integer[uint16](1, allPorts)
	several := text(nameRule{portForm + "-" + portForm, `a port, or a range such as "8000-8010"`}, parsePortRange)
	one := kind[PortRange]{schema{"oneOf": []schema{single.schema, several.schema}}, func(d *decoder, n *yaml.Node, path string, into *PortRange) bool {
		if n.Kind == yaml.ScalarNode && n.Style == 0 && isAmbiguous(n.Value) {
			if !single.read(d, n, path, &into.First) {
				return false
			}
			into.Last = into.First
			return true
		}
		return several.read(d, n, path, into)
	}}
	asList := converted(one, func(_ *decoder, _ string, r PortRange) []PortRange { return []PortRange{r} })
	items := list(one, 100)
	items.schema["minItems"] = 1
	k := either("a port, a range, or a list of them", map[yaml.Kind]kind[[]PortRange]{
		yaml.ScalarNode: asList,
		yaml.SequenceNode: items.checked(func(d *decoder, n *yaml.Node, path string, v *[]PortRange) bool {
			return len(*v) > 0 || d.fail(n, path, "the list of ports is empty", "leave the key out for the default")
		}),
	})
	return converted(k, func(_ *decoder, _ string, ports []PortRange) []PortRange { return normalizePorts(ports) })
}

func limitsKind() kind[Limits] {
	bytes := size(1*KiB, 16*TiB)
	return object(
		key("upload", bytes, func(l *Limits) *Bytes { return &l.Upload }, "Bytes sent."),
		key("download", bytes, func(l *Limits) *Bytes { return &l.Download }, "Bytes received."),
		key("idle", duration(time.Second, 1*day), func(l *Limits) *time.Duration { return &l.Idle }, "A connection without traffic for so long is closed."),
		key("connect", duration(time.Second, 5*time.Minute), func(l *Limits) *time.Duration { return &l.Connect }, "Time to open a connection."),
	)
}
