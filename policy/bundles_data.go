package policy

import (
	"cmp"
	"slices"
)

// bundleRow is a bundle as it is written down here.
type bundleRow struct {
	name, about, source string
	hosts               []bundleHostRow
	discovered          bool
	how, mend           string // of one whose hosts are discovered, or extended so
}

type bundleHostRow struct {
	host, reason string
	source       string // where it is not the bundle's
	plain        bool   // also port 80: the tool checks signatures and fetches without TLS
}

func (r bundleRow) bundle() Bundle {
	b := Bundle{Name: r.name, About: r.about, Source: r.source, Discovered: r.discovered, How: r.how, Mend: r.mend}
	for _, row := range r.hosts {
		ports := []PortRange{{443, 443}}
		if row.plain {
			ports = []PortRange{{80, 80}, {443, 443}}
		}
		b.Hosts = append(b.Hosts, BundleHost{Host: mustHost(row.host), Ports: ports, Reason: row.reason, Source: cmp.Or(row.source, r.source)})
	}
	slices.SortFunc(b.Hosts, func(a, b BundleHost) int { return cmp.Compare(a.Host.String(), b.Host.String()) })
	return b
}

// mustHost is for the literals of this file; a test reads them all.
func mustHost(s string) Host {
	h, err := ParseHost(s)
	if err != nil {
		panic("policy: bug in a bundle: " + s + ": " + err.Error())
	}
	return h
}

// bundleData has no host of the package registries of JavaScript, Go and Debian on purpose: a company's mirror stands in for
// those everywhere, and a list here would go around it.
func bundleData() []bundleRow {
	return slices.Concat(registryBundles(), platformBundles(), systemBundles(), downloadBundles(), modelBundles(), []bundleRow{
		{
			name: "debian", about: "apt, from the mirrors that the image's sources name.", discovered: true,
			how:  "from /etc/apt/sources.list, sources.list.d and the mirror lists that they name, in the image",
			mend: "use an image with apt's sources, or name the mirror's host",
		},
		{
			name: "go", about: "Go modules and their checksums, from where GOPROXY and GOSUMDB say.", discovered: true,
			how:  "from `go env GOPROXY GOSUMDB` in the image, and from these variables in the policy's env",
			mend: "set GOPROXY in the policy's env or in the image, or name the proxy's host",
		},
		{
			name: "npm", about: "Packages of JavaScript for npm, pnpm and yarn, from the registries that they are configured for.", discovered: true,
			how:  "from the configuration of npm and yarn in the image, npm_config_registry, and the project's .npmrc and .yarnrc.yml",
			mend: "write `registry=URL` in the project's .npmrc, or use an image that has npm",
		},
	})
}

func registryBundles() []bundleRow {
	return []bundleRow{
		{
			name: "cargo", about: "Crates of Rust, and the toolchains of rustup.",
			source: "https://doc.rust-lang.org/cargo/reference/registry-index.html",
			how:    "further ones from [source] and [registries] in .cargo/config.toml of the project and of $CARGO_HOME in the image",
			hosts: []bundleHostRow{
				{host: "crates.io", reason: "the registry's API: search, publish"},
				{host: "index.crates.io", reason: "the sparse index", source: "https://doc.rust-lang.org/nightly/nightly-rustc/cargo/sources/registry/constant.CRATES_IO_HTTP_INDEX.html"},
				{host: "static.crates.io", reason: "the crates themselves", source: "https://crates.io/data-access"},
				{host: "static.rust-lang.org", reason: "toolchains that rust-toolchain.toml asks for", source: "https://rust-lang.github.io/rustup/environment-variables.html"},
			},
		},
		{
			name: "gradle", about: "Gradle's plugins and distributions. The wrapper's download may go on to GitHub: then `github` is needed too.",
			source: "https://docs.gradle.org/current/userguide/gradle_wrapper.html",
			hosts: []bundleHostRow{
				{host: "downloads.gradle.org", reason: "distributions, where the wrapper's address leads to"},
				{host: "plugins-artifacts.gradle.org", reason: "plugins, where the portal's addresses lead to", source: "https://plugins.gradle.org/"},
				{host: "plugins.gradle.org", reason: "the plugin portal", source: "https://plugins.gradle.org/"},
				{host: "services.gradle.org", reason: "the wrapper's address of a distribution"},
			},
		},
		{
			name: "maven", about: "Maven Central, for Maven, Gradle and others.",
			source: "https://maven.apache.org/ref/current/maven-model-builder/super-pom.html",
			how:    "further ones from mirrors and repositories in the project's settings.xml, .mvn/settings.xml and pom.xml, and in the image's settings.xml",
			hosts: []bundleHostRow{
				{host: "repo.maven.apache.org", reason: "Maven's default repository"},
				{host: "repo1.maven.org", reason: "the same, by its older name", source: "https://central.sonatype.org/consume/consume-maven/"},
			},
		},
	}
}

func platformBundles() []bundleRow {
	return []bundleRow{
		{
			name: "nuget", about: "Packages of .NET.",
			source: "https://learn.microsoft.com/nuget/api/overview",
			hosts: []bundleHostRow{
				{host: "api.nuget.org", reason: "index and packages, version 3 of the protocol"},
				{host: "azuresearch-usnc.nuget.org", reason: "search, as the index names it"},
				{host: "azuresearch-ussc.nuget.org", reason: "search, as the index names it second"},
				{host: "www.nuget.org", reason: "version 2 of the protocol, and publishing"},
			},
		},
		{
			name: "packagist", about: "Packages of PHP. Composer fetches most of them from GitHub: then `github` is needed too.",
			source: "https://packagist.org/about",
			hosts: []bundleHostRow{
				{host: "packagist.org", reason: "search, notifications and security advisories"},
				{host: "repo.packagist.org", reason: "the metadata of packages", source: "https://packagist.org/apidoc"},
			},
		},
		{
			name: "pypi", about: "Packages of Python. Whoever has an account can also publish there.",
			source: "https://docs.pypi.org/api/index-api/",
			how:    "further ones from index-url and extra-index-url in pip.conf, requirements*.txt, pyproject.toml and uv.toml of the project, pip.conf of the image, and PIP_ and UV_ variables",
			hosts: []bundleHostRow{
				{host: "files.pythonhosted.org", reason: "the packages themselves"},
				{host: "pypi.org", reason: "the index"},
			},
		},
		{
			name: "rubygems", about: "Packages of Ruby.",
			source: "https://guides.rubygems.org/rubygems-org-api/",
			hosts: []bundleHostRow{
				{host: "index.rubygems.org", reason: "the compact index, which Bundler asks in place of rubygems.org", source: "https://github.com/rubygems/bundler/pull/4358"},
				{host: "rubygems.org", reason: "packages, the compact index and the API"},
			},
		},
	}
}

func systemBundles() []bundleRow {
	return []bundleRow{
		{
			name: "alpine", about: "Packages of Alpine Linux.",
			source: "https://wiki.alpinelinux.org/wiki/Repositories",
			hosts:  []bundleHostRow{{host: "dl-cdn.alpinelinux.org", reason: "the default mirror; apk checks signatures", plain: true}},
		},
		{
			name: "docker-hub", about: "Images of Docker Hub, to pull and to push.",
			source: "https://docs.docker.com/desktop/setup/allow-list/",
			hosts: []bundleHostRow{
				{host: "auth.docker.io", reason: "tokens, also for anonymous pulls"},
				{host: "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com", reason: "layers"},
				{host: "index.docker.io", reason: "the registry, by its older name", source: "https://pkg.go.dev/github.com/google/go-containerregistry/pkg/name#pkg-constants"},
				{host: "production.cloudflare.docker.com", reason: "layers"},
				{host: "production.cloudfront.docker.com", reason: "layers"},
				{host: "registry-1.docker.io", reason: "the registry"},
			},
		},
		{
			name: "ghcr", about: "Images of GitHub's container registry.",
			source: "https://docs.github.com/actions/reference/runners/self-hosted-runners",
			hosts: []bundleHostRow{
				{host: "ghcr.io", reason: "the registry"},
				{host: "pkg-containers.githubusercontent.com", reason: "layers, where the registry's addresses lead to", source: "https://api.github.com/meta"},
			},
		},
		{
			name: "github", about: "GitHub, read and write: whoever holds a token can send anything there. Rules on api.github.com are narrower.",
			source: "https://docs.github.com/actions/reference/runners/self-hosted-runners",
			hosts: []bundleHostRow{
				{host: "api.github.com", reason: "the API"},
				{host: "codeload.github.com", reason: "archives of repositories"},
				{host: "gist.githubusercontent.com", reason: "files of gists", source: "https://api.github.com/meta"},
				{host: "github-cloud.githubusercontent.com", reason: "objects of Git LFS"},
				{host: "github-cloud.s3.amazonaws.com", reason: "objects of Git LFS"},
				{host: "github-releases.githubusercontent.com", reason: "files of releases, by an older name"},
				{host: "github.com", reason: "git over HTTPS, pages, and where downloads of releases start"},
				{host: "lfs.github.com", reason: "Git LFS", source: "https://api.github.com/meta"},
				{host: "media.githubusercontent.com", reason: "files in Git LFS", source: "https://api.github.com/meta"},
				{host: "objects-origin.githubusercontent.com", reason: "files of releases"},
				{host: "objects.githubusercontent.com", reason: "files of releases, and objects of Git LFS"},
				{host: "raw.githubusercontent.com", reason: "single files", source: "https://api.github.com/meta"},
				{host: "release-assets.githubusercontent.com", reason: "files of releases, where github.com leads to", source: "https://api.github.com/meta"},
				{host: "uploads.github.com", reason: "uploads to releases", source: "https://docs.github.com/rest/releases/assets"},
			},
		},
	}
}

func downloadBundles() []bundleRow {
	return []bundleRow{
		{
			name: "playwright", about: "Browsers for Playwright. Some versions fetch Chromium from storage.googleapis.com, where anybody can keep files: name it yourself.",
			source: "https://github.com/microsoft/playwright/blob/main/packages/playwright-core/src/server/registry/index.ts",
			hosts: []bundleHostRow{
				{host: "cdn.playwright.dev", reason: "the browsers"},
				{host: "playwright.download.prss.microsoft.com", reason: "where the first leads to, and tried second"},
			},
		},
		{
			name: "ubuntu", about: "Packages of Ubuntu, from its own archive and the mirrors of countries and clouds under its name.",
			source: "https://documentation.ubuntu.com/server/how-to/software/package-management/",
			hosts: []bundleHostRow{
				{host: "*.archive.ubuntu.com", reason: "mirrors of countries and clouds; apt checks signatures", plain: true},
				{host: "archive.ubuntu.com", reason: "the archive", plain: true},
				{host: "ports.ubuntu.com", reason: "the archive of other processors, arm64 among them", plain: true},
				{host: "security.ubuntu.com", reason: "security updates", plain: true},
			},
		},
	}
}

func modelBundles() []bundleRow {
	return []bundleRow{
		{
			name: "anthropic", about: "Claude's API, and the sign-in of Claude Code.",
			source: "https://code.claude.com/docs/en/network-config",
			hosts: []bundleHostRow{
				{host: "api.anthropic.com", reason: "the API"},
				{host: "console.anthropic.com", reason: "renewal of a sign-in, in older versions"},
				{host: "platform.claude.com", reason: "renewal of a sign-in"},
			},
		},
		{
			name: "google-ai", about: "Gemini's API, and the sign-in of Gemini CLI. Vertex AI is a host of the region: name it.",
			source: "https://ai.google.dev/api",
			hosts: []bundleHostRow{
				{host: "aiplatform.googleapis.com", reason: "Vertex AI's global endpoint", source: "https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations"},
				{host: "cloudcode-pa.googleapis.com", reason: "Gemini CLI with a Google account", source: "https://docs.cloud.google.com/gemini/docs/codeassist/set-up-gemini"},
				{host: "generativelanguage.googleapis.com", reason: "the API"},
				{host: "oauth2.googleapis.com", reason: "renewal of a sign-in", source: "https://developers.google.com/identity/protocols/oauth2"},
			},
		},
		{
			name: "huggingface", about: "Models and data sets of Hugging Face. Whoever has an account can also upload there.",
			source: "https://huggingface.co/.well-known/meta.json",
			hosts: []bundleHostRow{
				{host: "*.hf.co", reason: "storage: Xet, its bridge, LFS, and the delivery network of each region"},
				{host: "*.huggingface.co", reason: "storage by its older names, and the data set server", source: "https://huggingface.co/docs/dataset-viewer/quick_start"},
				{host: "hf.co", reason: "short links"},
				{host: "huggingface.co", reason: "the hub"},
			},
		},
		{
			name: "openai", about: "OpenAI's API, and the sign-in of Codex.",
			source: "https://platform.openai.com/docs/api-reference",
			hosts: []bundleHostRow{
				{host: "api.openai.com", reason: "the API"},
				{host: "auth.openai.com", reason: "renewal of a sign-in", source: "https://developers.openai.com/codex/auth"},
				{host: "chatgpt.com", reason: "Codex with a ChatGPT plan", source: "https://developers.openai.com/codex/auth"},
			},
		},
	}
}
