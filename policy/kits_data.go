package policy

// kitData are the kits, each as its program at this version has it: from its --help, its source and the maker's documentation.
func kitData() []Kit {
	return []Kit{aiderKit(), claudeKit(), codexKit(), geminiKit(), gooseKit(), opencodeKit(), shellKit()}
}

// The services that several agents can work with.
func anthropicCredential() KitCredential {
	return KitCredential{Service: "anthropic", From: []string{"ANTHROPIC_API_KEY"}, BaseURL: "ANTHROPIC_BASE_URL"}
}

func openaiCredential() KitCredential {
	return KitCredential{Service: "openai", From: []string{"OPENAI_API_KEY"}, BaseURL: "OPENAI_BASE_URL"}
}

func geminiCredential() KitCredential {
	return KitCredential{
		Service: "gemini", From: []string{"GEMINI_API_KEY", "GOOGLE_API_KEY"}, Env: "GEMINI_API_KEY", BaseURL: "GOOGLE_GEMINI_BASE_URL",
	}
}

func openrouterCredential() KitCredential {
	return KitCredential{Service: "openrouter", From: []string{"OPENROUTER_API_KEY"}}
}

// claudeKit: 2.1.197 is the newest for Node 20 by its package; later ones ask for Node 22.
// https://code.claude.com/docs/en/env-vars, https://code.claude.com/docs/en/cli-reference
func claudeKit() Kit {
	return Kit{
		Name: "claude", About: "Claude Code of Anthropic", Version: "2.1.197", Source: "https://code.claude.com/docs", Tried: true,
		Install:     Install{"npm", "@anthropic-ai/claude-code", "2.1.197"},
		Command:     []string{"claude", "--print", "--dangerously-skip-permissions", "--", TaskWord},
		Interactive: []string{"claude", "--dangerously-skip-permissions", "--", TaskWord},
		Credentials: []KitCredential{
			anthropicCredential(),
			{Service: "claude-code", From: []string{"CLAUDE_CODE_OAUTH_TOKEN"}, BaseURL: "ANTHROPIC_BASE_URL"},
		},
		Env: settings(
			"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1", // updates, statistics, error reports, surveys
			"CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL", "1", // a catalogue of plugins, fetched on a terminal
			"CLAUDE_CODE_SANDBOXED", "1", // no question whether the project is trusted
			"DISABLE_UPDATES", "1", // also by hand
			"IS_SANDBOX", "1", // lets it skip permissions as uid 0, for `user: root`
		),
		Files: []KitFile{
			{
				Name: "claude.json", Home: ".claude.json", // no questions on a terminal about the theme, the key and the project
				Content: `{"hasCompletedOnboarding": true, "customApiKeyResponses": {"approved": ["` + PlaceholderEnd + `"], "rejected": []}, ` +
					`"projects": {"/workspace": {"hasTrustDialogAccepted": true}}}` + "\n",
			},
			{Name: "claude-settings.json", Home: ".claude/settings.json", Content: `{"skipDangerousModePermissionPrompt": true}` + "\n"},
		},
		State: ".claude",
		Exits: []KitExit{{1, "the task failed, or the API refused"}},
	}
}

// codexKit: the provider is spelled out because the built-in one wants a sign-in on a terminal, and looks for more hosts.
// https://developers.openai.com/codex/config-reference
func codexKit() Kit {
	common := []string{
		"--dangerously-bypass-approvals-and-sandbox", // its own sandbox takes rights that nobody has here
		"-c", `model_providers.api={name="OpenAI", base_url="https://api.openai.com/v1", env_key="OPENAI_API_KEY", wire_api="responses"}`,
		"-c", `model_provider="api"`,
		"-c", "check_for_update_on_startup=false",
		"-c", "analytics.enabled=false",
		"-c", `projects."/workspace".trust_level="trusted"`,
		"--disable", "plugins", // fetches a catalogue from GitHub
	}
	return Kit{
		Name: "codex", About: "Codex of OpenAI", Version: "0.169.0", Source: "https://developers.openai.com/codex", Tried: true,
		Install:     Install{"npm", "@openai/codex", "0.169.0"},
		Command:     concat([]string{"codex", "exec", "--skip-git-repo-check"}, common, []string{"--", TaskWord}),
		Interactive: concat([]string{"codex"}, common, []string{"-c", "tui.show_tooltips=false", "--", TaskWord}), // the tips come from GitHub
		Credentials: []KitCredential{{Service: "openai", From: []string{"OPENAI_API_KEY", "CODEX_API_KEY"}}},
		State:       ".codex",
		Exits:       []KitExit{{1, "the task failed, or the API refused"}},
	}
}

// geminiKit: its settings of the system must lie where root owns every directory above, so these are the user's.
// https://geminicli.com/docs/reference/configuration, https://geminicli.com/docs/cli/headless
func geminiKit() Kit {
	return Kit{
		Name: "gemini", About: "Gemini CLI of Google", Version: "0.61.0", Source: "https://geminicli.com/docs", Tried: true,
		Install:     Install{"npm", "@google/gemini-cli", "0.61.0"},
		Command:     []string{"gemini", "--approval-mode=yolo", "--prompt=" + TaskWord},
		Interactive: []string{"gemini", "--approval-mode=yolo", "--prompt-interactive=" + TaskWord},
		Credentials: []KitCredential{geminiCredential()},
		Env: settings(
			"GEMINI_CLI_TRUST_WORKSPACE", "true", // no question whether the project is trusted
			"GEMINI_SANDBOX", "false",
			"GEMINI_TELEMETRY_ENABLED", "false",
		),
		Files: []KitFile{{
			Name: "gemini.json", Home: ".gemini/settings.json",
			Content: `{"general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false}, ` +
				`"privacy": {"usageStatisticsEnabled": false}, "telemetry": {"enabled": false}, ` +
				`"security": {"auth": {"selectedType": "gemini-api-key"}}}` + "\n",
		}},
		State: ".gemini",
		Exits: []KitExit{
			{1, "the task failed, or the API refused"},
			{41, "it could not sign in"},
			{42, "it did not understand the task or its options"},
			{44, "its own sandbox failed"},
			{52, "its settings are wrong"},
			{53, "its limit of turns was reached"},
			{54, "a tool failed"},
			{55, "it does not trust the project"},
			{130, "it was cancelled"},
		},
	}
}

// opencodeKit gets the task on standard input: it puts quotes around an argument. On each start it fetches the library for plugins into its
// directory of settings, and waits for that on a terminal; no setting switches it off, but a lock file that has the library does.
// https://opencode.ai/docs/cli, https://opencode.ai/docs/config
func opencodeKit() Kit {
	return Kit{
		Name: "opencode", About: "opencode, with a model of Anthropic, OpenAI, Google or OpenRouter", Version: "1.18.18", Source: "https://opencode.ai/docs", Tried: true,
		Install:     Install{"npm", "opencode-ai", "1.18.18"},
		Command:     []string{"opencode", "run", "--auto"},
		Interactive: []string{"opencode", "--auto", "--prompt=" + TaskWord},
		Credentials: []KitCredential{
			anthropicCredential(),
			openaiCredential(),
			{Service: "gemini", From: []string{"GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"}, Env: "GOOGLE_GENERATIVE_AI_API_KEY"},
			openrouterCredential(),
		},
		Env: settings(
			"OPENCODE_DISABLE_AUTOUPDATE", "1",
			"OPENCODE_DISABLE_DEFAULT_PLUGINS", "1", // would be fetched
			"OPENCODE_DISABLE_LSP_DOWNLOAD", "1",
			"OPENCODE_DISABLE_MODELS_FETCH", "1", // it has a list of its own
			"OPENCODE_DISABLE_SHARE", "1",
		),
		Files: []KitFile{
			{
				Name: "opencode-lock.json", Home: ".config/opencode/package-lock.json",
				Content: `{"packages": {"": {"dependencies": {"@opencode-ai/plugin": "1.18.18"}}}}` + "\n",
			},
			{Name: "opencode-modules", Home: ".config/opencode/node_modules/README", Content: "Empty, so that nothing is fetched.\n"},
		},
		State: ".local/share/opencode",
		Exits: []KitExit{{1, "the task failed, or the API refused"}},
	}
}

// aiderKit commits nothing: the change set is what the sandbox hands over.
// https://aider.chat/docs/config/options.html, https://aider.chat/docs/scripting.html
func aiderKit() Kit {
	return Kit{
		Name: "aider", About: "aider, with a model of Anthropic, OpenAI, Google or OpenRouter", Version: "0.86.1", Source: "https://aider.chat/docs",
		Install:     Install{"pip", "aider-chat", "0.86.1"},
		Command:     []string{"aider", "--yes-always", "--message=" + TaskWord},
		Interactive: []string{"aider"},
		Credentials: []KitCredential{anthropicCredential(), openaiCredential(), geminiCredential(), openrouterCredential()},
		Env: settings(
			"AIDER_ANALYTICS", "false",
			"AIDER_ANALYTICS_DISABLE", "true",
			"AIDER_AUTO_COMMITS", "false",
			"AIDER_CHECK_UPDATE", "false",
			"AIDER_DIRTY_COMMITS", "false",
			"AIDER_GITIGNORE", "false", // no change of .gitignore
			"AIDER_INPUT_HISTORY_FILE", "/tmp/aider.input.history", // not among the project's files
			"AIDER_CHAT_HISTORY_FILE", "/tmp/aider.chat.history.md",
			"AIDER_SHOW_RELEASE_NOTES", "false",
			"LITELLM_LOCAL_MODEL_COST_MAP", "True", // prices are not fetched
		),
		State: ".aider",
		Exits: []KitExit{{1, "it could not start"}},
	}
}

// gooseKit: the variables that choose the provider come with the credential.
// https://block.github.io/goose/docs/guides/environment-variables, https://block.github.io/goose/docs/guides/config-files
func gooseKit() Kit {
	provider := func(c KitCredential, name, model string) KitCredential {
		c.Set = settings("GOOSE_PROVIDER", name, "GOOSE_MODEL", model)
		return c
	}
	google := geminiCredential()
	google.Env, google.BaseURL = "GOOGLE_API_KEY", ""
	return Kit{
		Name: "goose", About: "goose of Block, with a model of Anthropic, OpenAI or Google", Version: "1.9.0", Source: "https://block.github.io/goose/docs",
		Install:     Install{"release", "https://github.com/block/goose/releases", "1.9.0"},
		Command:     []string{"goose", "run", "--no-session", "--text=" + TaskWord},
		Interactive: []string{"goose", "session"},
		Credentials: []KitCredential{
			provider(anthropicCredential(), "anthropic", "claude-sonnet-4-20250514"),
			provider(openaiCredential(), "openai", "gpt-4o"),
			provider(google, "google", "gemini-2.5-flash"),
		},
		Env: settings(
			"GOOSE_DISABLE_KEYRING", "1",
			"GOOSE_MODE", "auto",
			"GOOSE_TELEMETRY_ENABLED", "false",
		),
		State: ".config/goose",
		Exits: []KitExit{{1, "the task failed, or the API refused"}},
	}
}

// shellKit is for looking around, and for tasks that are scripts.
func shellKit() Kit {
	return Kit{
		Name: "shell", About: "bash of the image, or else its sh; the task is a script", Source: "https://www.gnu.org/software/bash/manual/", Tried: true,
		Command: append(ShellOf(), "-c", TaskWord), Interactive: ShellOf(),
	}
}

// ShellOf is the command of a shell in whatever image: bash where it is there, as it is not in small images.
func ShellOf() []string {
	return []string{"sh", "-c", `command -v bash >/dev/null && exec bash "$@"; exec sh "$@"`, "shell"}
}

// settings are variables with fixed values: name, value, name, value.
func settings(pairs ...string) []EnvVar {
	var all []EnvVar
	for i := 0; i+1 < len(pairs); i += 2 {
		all = append(all, EnvVar{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}

func concat(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}
