package policy

import "strings"

// protectionGroup is one reason with the patterns that it holds for. A pattern with a slash inside matches below any
// directory, since editors and tools take any directory for a project; one that starts with a slash is for the root alone.
type protectionGroup struct {
	tier     Tier
	reason   string
	patterns string // separated by blanks
}

// defaultProtections are the paths that act on the host or in CI without a decision of whoever applies the change.
// reject: something runs them unasked (on open, cd, commit, push or install), or they decide who reviews. warn:
// they run in the ordinary course of building, or change where code comes from. What a build reads as its normal
// source (Makefile, setup.py, Dockerfile) is not here: it is what the agent was asked to write, and the diff shows it.
func defaultProtections() []protection {
	var all []protection
	for _, groups := range [][]protectionGroup{gitProtections(), ciProtections(), agentProtections(), editorProtections(), toolProtections(), packageProtections()} {
		for _, g := range groups {
			for text := range strings.FieldsSeq(g.patterns) {
				if strings.Contains(text, "/") && !strings.HasPrefix(text, "/") {
					text = "**/" + text
				}
				all = append(all, protection{mustPattern(text), g.tier, g.reason})
			}
		}
	}
	return all
}

// gitProtections leave out what is below .git, which gitReason judges.
func gitProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "git runs these hooks", ".husky .githooks .git-hooks"},
		{TierReject, "a hook manager runs what it says at the next commit or push", ".pre-commit-config.yaml .pre-commit-config.yml " +
			"lefthook.yml lefthook.yaml lefthook.toml lefthook.json .lefthook.* lefthook-local.* .lefthook-local.* .lefthook .lefthook-local " +
			".overcommit.yml .git-hooks.yml .lintstagedrc .lintstagedrc.* lint-staged.config.* .simple-git-hooks.* simple-git-hooks.*"},
		{TierReject, "another version control system runs hooks and settings from here", ".hg .svn .bzr .jj .sl"},
		{TierWarn, "submodules bring code from elsewhere, and may name commands to update it", ".gitmodules"},
		{TierWarn, "attributes turn on filters, diff and merge drivers that the host has configured", ".gitattributes"},
		{TierWarn, "git obeys it when a config includes it", ".gitconfig"},
		{TierWarn, "it decides which server git-lfs sends its credential to", ".lfsconfig"},
		{TierWarn, "it defines hooks that other projects run", ".pre-commit-hooks.yaml"},
		{TierWarn, "hook managers run it at commit", ".commitlintrc.* commitlint.config.* .czrc .cz.toml"},
	}
}

func ciProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "CI runs it, with the repository's credentials", ".github/workflows .github/actions .gitlab-ci.yml .gitlab-ci.yaml .gitlab-ci .gitlab/ci " +
			".circleci .travis.yml .travis.yaml Jenkinsfile Jenkinsfile.* azure-pipelines.yml azure-pipelines.yaml .azure-pipelines .azuredevops azure-pipelines " +
			"bitbucket-pipelines.yml .drone.yml .drone.yaml .drone.star .drone.jsonnet .woodpecker .woodpecker.yml .woodpecker.yaml .buildkite " +
			"appveyor.yml .appveyor.yml .cirrus.yml .cirrus.star .teamcity .semaphore .gitea/workflows .forgejo/workflows .tekton .builds .build.yml " +
			"cloudbuild.yaml cloudbuild.yml buildspec.yml buildspec.yaml wercker.yml codefresh.yml .harness .screwdriver.yaml screwdriver.yaml"},
		{TierReject, "it decides who has to review, or merges without a review", "CODEOWNERS .mergify.yml .mergify .github/mergify.yml .kodiak.toml bors.toml .github/settings.yml"},
		{TierReject, "it decides what agents may do", ".agent-sandbox.yaml .agent-sandbox.yml .agent-sandbox.lock .agent-sandbox .github/agent-sandbox .github/chainguard"},
		{TierReject, "it decides who can decrypt the project's secrets", ".sops.yaml .sops.yml .git-crypt .gpg-id"},
		{TierWarn, "it runs in the workflows of whoever uses this action", "action.yml action.yaml"},
		{TierWarn, "a bot changes dependencies, or runs commands, by it", ".github/dependabot.yml .github/dependabot.yaml renovate.json renovate.json5 .renovaterc .renovaterc.json"},
		{TierWarn, "release tools run commands from it, with publishing credentials", ".goreleaser.yml .goreleaser.yaml goreleaser.yml goreleaser.yaml .releaserc .releaserc.* release.config.*"},
		{TierWarn, "a hosting service builds and deploys by it", "netlify.toml vercel.json .vercel .netlify fly.toml render.yaml app.yaml"},
	}
}

func agentProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "the next agent, perhaps one outside a sandbox, takes its instructions from it", "CLAUDE.md CLAUDE.local.md AGENTS.md AGENTS.override.md AGENT.md GEMINI.md QWEN.md CRUSH.md WARP.md " +
			".cursorrules .windsurfrules .clinerules .clinerules-* .roorules .roorules-* .roomodes .goosehints .rules .augment-guidelines .junie " +
			".github/copilot-instructions.md .github/instructions .github/prompts .github/chatmodes .github/agents .github/skills .github/hooks"},
		{TierReject, "settings in here make an agent run hooks, commands or tool servers on the host", ".claude .claude.json .mcp.json mcp.json .mcp .codex .gemini .qwen .cursor .windsurf .codeium .roo .kilocode " +
			".opencode opencode.json opencode.jsonc .crush.json crush.json .crush .goose .copilot .continue .continuerc.json .amazonq .kiro .trae .augment .openhands .devin " +
			".agents .agent .factory .warp .amp .ruler .aider.conf.yml .aider.conf.yaml .aider.model.settings.yml .claude-plugin"},
		{TierWarn, "it decides which files agents get to see", ".aiderignore .cursorignore .cursorindexingignore .geminiignore .aiexclude .codeiumignore .clineignore .rooignore"},
	}
}

func editorProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "an editor runs tasks, debuggers and tool paths from it, some as soon as the folder is opened", ".vscode/tasks.json .vscode/settings.json .vscode/launch.json .vscode/mcp.json .vscode/*.code-workspace *.code-workspace " +
			".idea .run .fleet .zed .vs .nova .helix .theia .settings .externalToolBuilders *.sublime-project " +
			".exrc .nvimrc .nvim.lua .vimrc .lvimrc .dir-locals.el .dir-locals-2.el .projectile .kakrc"},
		{TierReject, "its commands run on the host before the container exists", ".devcontainer .devcontainer.json .gitpod.yml .gitpod.Dockerfile .idx .replit replit.nix"},
		{TierReject, "a debugger or an interpreter runs it when it is started in this directory", ".gdbinit .lldbinit .pdbrc .pdbrc.py .irbrc .pryrc .Rprofile .Renviron .ghci .ocamlinit .php.ini .user.ini"},
		{TierWarn, "an editor reads it", ".vscode devfile.yaml .devfile.yaml"},
		{TierWarn, "a file manager acts on it when the folder is opened", "desktop.ini autorun.inf .directory *.desktop *.lnk *.scf *.url *.library-ms *.webloc"},
	}
}

func toolProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "the shell runs it when somebody enters the directory", ".envrc .envrc.local .envrc.private .autoenv .autoenv.zsh .mise.toml .mise.*.toml mise.toml mise.*.toml .mise mise/config.toml .config/mise .config/mise.toml .rtx.toml .rtx .hermit"},
		{TierReject, "a build tool runs the programs that it names", ".cargo/config .cargo/config.toml .bundle /tools/bazel .bazeliskrc .buckconfig"},
		{TierWarn, "tools load environment variables from it, which can name programs", ".env .env.local .flaskenv"},
		{TierWarn, "it decides which toolchain runs, or what runs when the environment is entered", ".tool-versions rust-toolchain rust-toolchain.toml flake.nix flake.lock shell.nix devenv.nix devenv.yaml devbox.json .bazelrc .bazelversion"},
		{TierWarn, "linters and formatters run it, also inside the editor", ".eslintrc.js .eslintrc.cjs eslint.config.* .prettierrc.js .prettierrc.cjs .prettierrc.mjs prettier.config.* .stylelintrc.js stylelint.config.* .rubocop.yml"},
		{TierWarn, "editors and language servers run it by themselves", "build.rs .venv/bin .venv/Scripts venv/bin venv/Scripts node_modules/.bin sitecustomize.py usercustomize.py *.pth"},
		{TierWarn, "it can give containers and machines access to the host", "docker-compose*.yml docker-compose*.yaml compose.yml compose.yaml compose.*.yml compose.*.yaml Vagrantfile Tiltfile skaffold.yaml"},
		{TierWarn, "a wrapper downloads and runs what it names; a jar can't be reviewed", "gradle/wrapper .mvn gradlew gradlew.bat mvnw mvnw.cmd init.gradle"},
		{TierWarn, "every build below this directory, also the editor's own, runs it", "Directory.Build.props Directory.Build.targets Directory.Packages.props .sbtopts"},
	}
}

func packageProtections() []protectionGroup {
	return []protectionGroup{
		{TierReject, "the package manager runs or downloads what it names", ".npmrc .yarnrc .yarnrc.yml .yarn/releases .yarn/plugins .yarn/sdks .pnpmfile.cjs .pnpmfile.mjs pnpmfile.js .pnp.cjs .pnp.loader.mjs .pnp.js"},
		{TierWarn, "its scripts run at install and build", "package.json composer.json pnpm-workspace.yaml bunfig.toml"},
		{TierWarn, "it decides where packages come from", "pip.conf pip.ini uv.toml .pip .pypirc nuget.config .nuget .condarc .bowerrc .gemrc"},
	}
}
