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
}

type bundleHostRow struct {
	host, reason string
	plain        bool // also port 80: the tool checks signatures and fetches without TLS
}

func (r bundleRow) bundle() Bundle {
	b := Bundle{Name: r.name, About: r.about, Source: r.source, Discovered: r.discovered}
	for _, row := range r.hosts {
		ports := []PortRange{{443, 443}}
		if row.plain {
			ports = []PortRange{{80, 80}, {443, 443}}
		}
		b.Hosts = append(b.Hosts, BundleHost{Host: mustHost(row.host), Ports: ports, Reason: row.reason})
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
	return slices.Concat(registryBundles(), systemBundles(), modelBundles(), []bundleRow{
		{name: "debian", about: "apt, as the image's sources name the mirrors.", discovered: true},
		{name: "go", about: "Go modules and their checksums, as GOPROXY and GOSUMDB name them.", discovered: true},
		{name: "npm", about: "Packages of JavaScript, from the registries that .npmrc names.", discovered: true},
	})
}

func registryBundles() []bundleRow {
	return []bundleRow{
		{
			name: "cargo", about: "Crates of Rust, and the toolchains of rustup.",
			source: "https://doc.rust-lang.org/cargo/reference/registry-index.html",
			hosts: []bundleHostRow{
				{host: "crates.io", reason: "the registry's API: search, publish"},
				{host: "index.crates.io", reason: "the sparse index"},
				{host: "static.crates.io", reason: "the crates themselves"},
				{host: "static.rust-lang.org", reason: "toolchains that rust-toolchain.toml asks for"},
			},
		},
		{
			name: "gradle", about: "Gradle's plugins and distributions. The wrapper's download may go on to GitHub: then `github` is needed too.",
			source: "https://docs.gradle.org/current/userguide/gradle_wrapper.html",
			hosts: []bundleHostRow{
				{host: "downloads.gradle.org", reason: "distributions, where the wrapper's address leads to"},
				{host: "plugins-artifacts.gradle.org", reason: "plugins, where the portal's addresses lead to"},
				{host: "plugins.gradle.org", reason: "the plugin portal"},
				{host: "services.gradle.org", reason: "the wrapper's address of a distribution"},
			},
		},
		{
			name: "maven", about: "Maven Central, for Maven, Gradle and others.",
			source: "https://maven.apache.org/guides/introduction/introduction-to-repositories.html",
			hosts: []bundleHostRow{
				{host: "repo.maven.apache.org", reason: "Maven's default repository"},
				{host: "repo1.maven.org", reason: "the same, by its older name"},
			},
		},
		{
			name: "nuget", about: "Packages of .NET.",
			source: "https://learn.microsoft.com/nuget/api/overview",
			hosts: []bundleHostRow{
				{host: "api.nuget.org", reason: "index and packages, version 3 of the protocol"},
				{host: "www.nuget.org", reason: "version 2 of the protocol, and publishing"},
			},
		},
		{
			name: "packagist", about: "Packages of PHP. Composer fetches most of them from GitHub: then `github` is needed too.",
			source: "https://packagist.org/about",
			hosts: []bundleHostRow{
				{host: "packagist.org", reason: "search and notifications"},
				{host: "repo.packagist.org", reason: "the metadata of packages"},
			},
		},
		{
			name: "pypi", about: "Packages of Python. Whoever has an account can also publish there.",
			source: "https://docs.pypi.org/api/index-api/",
			hosts: []bundleHostRow{
				{host: "files.pythonhosted.org", reason: "the packages themselves"},
				{host: "pypi.org", reason: "the index"},
			},
		},
		{
			name: "rubygems", about: "Packages of Ruby.",
			source: "https://guides.rubygems.org/rubygems-org-api/",
			hosts: []bundleHostRow{
				{host: "index.rubygems.org", reason: "the compact index"},
				{host: "rubygems.org", reason: "packages and the API"},
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
				{host: "index.docker.io", reason: "the registry, by its older name"},
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
				{host: "pkg-containers.githubusercontent.com", reason: "layers"},
			},
		},
		{
			name: "github", about: "GitHub, read and write: whoever holds a token can send anything there. Rules on api.github.com are narrower.",
			source: "https://docs.github.com/actions/reference/runners/self-hosted-runners",
			hosts: []bundleHostRow{
				{host: "api.github.com", reason: "the API"},
				{host: "codeload.github.com", reason: "archives of repositories"},
				{host: "gist.githubusercontent.com", reason: "files of gists"},
				{host: "github-cloud.s3.amazonaws.com", reason: "objects of Git LFS"},
				{host: "github.com", reason: "git over HTTPS, pages, and where downloads of releases start"},
				{host: "lfs.github.com", reason: "Git LFS"},
				{host: "media.githubusercontent.com", reason: "files in Git LFS"},
				{host: "objects.githubusercontent.com", reason: "files of releases, and objects of Git LFS"},
				{host: "raw.githubusercontent.com", reason: "single files"},
				{host: "release-assets.githubusercontent.com", reason: "files of releases"},
				{host: "uploads.github.com", reason: "uploads to releases"},
			},
		},
		{
			name: "playwright", about: "Browsers for Playwright.",
			source: "https://playwright.dev/docs/browsers",
			hosts: []bundleHostRow{
				{host: "cdn.playwright.dev", reason: "the browsers"},
				{host: "playwright.download.prss.microsoft.com", reason: "the same, tried second"},
			},
		},
		{
			name: "ubuntu", about: "Packages of Ubuntu, from its own archive and the mirrors of countries and clouds under its name.",
			source: "https://documentation.ubuntu.com/server/how-to/software/package-management/",
			hosts: []bundleHostRow{
				{host: "*.archive.ubuntu.com", reason: "mirrors; apt checks signatures", plain: true},
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
				{host: "aiplatform.googleapis.com", reason: "Vertex AI's global endpoint"},
				{host: "cloudcode-pa.googleapis.com", reason: "Gemini CLI with a Google account"},
				{host: "generativelanguage.googleapis.com", reason: "the API"},
				{host: "oauth2.googleapis.com", reason: "renewal of a sign-in"},
			},
		},
		{
			name: "huggingface", about: "Models and data sets of Hugging Face. Whoever has an account can also upload there.",
			source: "https://huggingface.co/.well-known/meta.json",
			hosts: []bundleHostRow{
				{host: "*.hf.co", reason: "storage: Xet, its bridge, and LFS in each region"},
				{host: "*.huggingface.co", reason: "storage by its older names, and the data set server"},
				{host: "hf.co", reason: "short links"},
				{host: "huggingface.co", reason: "the hub"},
			},
		},
		{
			name: "openai", about: "OpenAI's API, and the sign-in of Codex.",
			source: "https://platform.openai.com/docs/api-reference",
			hosts: []bundleHostRow{
				{host: "api.openai.com", reason: "the API"},
				{host: "auth.openai.com", reason: "renewal of a sign-in"},
				{host: "chatgpt.com", reason: "Codex with a ChatGPT plan"},
			},
		},
	}
}
