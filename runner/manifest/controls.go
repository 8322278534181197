package manifest

// Support says which controls the evidence in a field helps to show. It supports evidence for a control; it never makes anybody compliant:
// that takes the organisation around it.
type Support struct {
	Field    string   `json:"field"`      // path in the predicate
	Shows    string   `json:"shows"`      // what an auditor sees there
	SOC2     []string `json:"soc2"`       // Trust Services Criteria (2017, with the points of focus of 2022)
	ISO27001 []string `json:"iso27001"`   // ISO/IEC 27001:2022, annex A
	NIST     []string `json:"nist800_53"` // NIST SP 800-53 revision 5
}

// Controls is the map of fields to controls, in the order of the predicate.
func Controls() []Support {
	return []Support{
		{"outcome", "how each run ended, also refused and interrupted ones", []string{"CC7.2"}, []string{"A.8.15"}, []string{"AU-2", "AU-3", "AU-12"}},
		{"invocation", "who or what started an agent, and with which task", []string{"CC6.1", "CC7.2"}, []string{"A.5.15", "A.8.15"}, []string{"AU-3", "AU-10"}},
		{"source", "the commit and the uncommitted changes that the agent was given", []string{"CC8.1"}, []string{"A.8.4", "A.8.25"}, []string{"CM-3", "SA-10", "SR-4"}},
		{"environment.image", "the exact image, and whether the lock file names it", []string{"CC6.8", "CC8.1"}, []string{"A.8.9", "A.8.19"}, []string{"CM-2", "CM-7", "SI-7"}},
		{"environment.runner", "the program that enforced the policy, by digest", []string{"CC6.8", "CC8.1"}, []string{"A.8.9"}, []string{"CM-2", "SI-7"}},
		{"policy", "the rules that were in force, and the organisation's ceiling over them", []string{"CC5.3", "CC6.1", "CC8.1"}, []string{"A.5.15", "A.8.3", "A.8.9"}, []string{"AC-3", "AC-6", "CM-6"}},
		{"isolation.measured", "the agent's rights as the kernel has them: no capabilities, own namespaces, a filter", []string{"CC6.1", "CC6.3"}, []string{"A.8.2", "A.8.31"}, []string{"AC-6", "CM-7", "SC-39"}},
		{"isolation.probes", "what was tried before the start, with controls that had to work", []string{"CC4.1", "CC7.1"}, []string{"A.8.16", "A.8.29"}, []string{"CA-7", "SI-6"}},
		{"isolation.lowered", "each protection that was weaker than it is by default, with the reason", []string{"CC3.2", "CC7.1"}, []string{"A.8.9"}, []string{"CM-6", "RA-3"}},
		{"credentials", "what each credential was for, how long it lived and how it ended; never its value", []string{"CC6.1", "CC6.3"}, []string{"A.5.17", "A.8.2", "A.8.5"}, []string{"AC-6", "IA-5"}},
		{"egress", "every host that was reached, and what was refused", []string{"CC6.6", "CC6.7", "CC7.2"}, []string{"A.8.12", "A.8.20", "A.8.22", "A.8.23"}, []string{"AC-4", "SC-7", "SI-4"}},
		{"egress.leaks", "credentials that were on their way to where they do not belong", []string{"CC6.7", "CC7.3"}, []string{"A.8.12"}, []string{"AC-4", "SI-4"}},
		{"workspace", "what was changed, by digest, before anybody accepted it", []string{"CC8.1"}, []string{"A.8.32"}, []string{"CM-3", "CM-5"}},
		{"workspace.tree", "the git tree that a commit of these changes has, so that what was merged leads to its run", []string{"CC8.1"}, []string{"A.8.4", "A.8.32"}, []string{"CM-3", "SA-10"}},
		{"workspace.outputs", "files that the policy names, as the agent left them, by digest", []string{"CC8.1"}, []string{"A.8.32"}, []string{"CM-3", "SI-7"}},
		{"workspace.protected", "changes to what would run on a developer's machine or in CI", []string{"CC6.8", "CC8.1"}, []string{"A.8.32"}, []string{"CM-5", "SI-7"}},
		{"resources", "the limits of the agent, and what it used", []string{"A1.1"}, []string{"A.8.6"}, []string{"SC-5", "SC-6"}},
		{"logs", "the agent's output, by digest", []string{"CC7.2"}, []string{"A.8.15"}, []string{"AU-3", "AU-9"}},
		{"events", "the head of a hash chain that shows whether the audit log is whole", []string{"CC7.2", "CC7.3"}, []string{"A.5.28", "A.5.33", "A.8.15"}, []string{"AU-9", "AU-10"}},
		{"missing", "what is not known, and why", []string{"CC4.1"}, []string{"A.5.28"}, []string{"AU-5"}},
		{"provenance", "whether a field was observed, asserted or inherited", []string{"CC4.1"}, []string{"A.5.28"}, []string{"AU-10"}},
	}
}
