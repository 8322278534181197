package broker

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/org/agent-sandbox/runner/secret"
)

// object is of a Kubernetes manifest, as far as the tests look at it.
type object struct {
	Kind string
	Data map[string]string
	Spec struct {
		Replicas     int
		MinAvailable int `yaml:"minAvailable"`
		Template     struct {
			Spec struct {
				Automount       *bool `yaml:"automountServiceAccountToken"`
				Grace           int   `yaml:"terminationGracePeriodSeconds"`
				SecurityContext struct {
					NonRoot *bool `yaml:"runAsNonRoot"`
					User    int   `yaml:"runAsUser"`
					Seccomp struct {
						Type string
					} `yaml:"seccompProfile"`
				} `yaml:"securityContext"`
				Containers []struct {
					LivenessProbe   probe `yaml:"livenessProbe"`
					ReadinessProbe  probe `yaml:"readinessProbe"`
					SecurityContext struct {
						Escalation *bool `yaml:"allowPrivilegeEscalation"`
						ReadOnly   bool  `yaml:"readOnlyRootFilesystem"`
						Caps       struct {
							Drop []string
						} `yaml:"capabilities"`
					} `yaml:"securityContext"`
				}
			}
		}
	}
}

type probe struct {
	Get struct{ Path string } `yaml:"httpGet"`
}

// objects are those of docs/broker/kubernetes.yaml.
func objects(t *testing.T) map[string]object {
	t.Helper()
	all := map[string]object{}
	for part := range bytes.SplitSeq(document(t, "broker/kubernetes.yaml"), []byte("\n---\n")) {
		var o object
		if err := yaml.Load(part, &o, yaml.WithV4Defaults()); err != nil {
			t.Fatal(err)
		}
		all[o.Kind] = o
	}
	return all
}

func document(t *testing.T, name string) []byte {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "docs", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// The configurations of the documentation are valid, and every key of a configuration is explained.
func TestDocumentedConfigurations(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := secret.New(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	for name, src := range map[string][]byte{
		"broker.yaml": document(t, "broker/broker.yaml"), "kubernetes.yaml": []byte(objects(t)["ConfigMap"].Data["broker.yaml"]),
	} {
		cfg, err := ParseConfig(name, src)
		if err != nil {
			t.Fatal(err)
		}
		cfg.DatabaseURL, cfg.Apps[0].Key = secret.New("postgres://broker@database.example/broker"), text
		if err := cfg.check(); err != nil {
			t.Error(err)
		}
	}
	manual := string(document(t, "broker.md"))
	for _, key := range []string{
		"audience", "listen", "tls", "database", "database_env", "issuers", "jwks", "ceiling", "apps", "owners", "api", "key_file", "key_env", "limits",
		"per_repository", "per_address", "in_flight", "proxies",
	} {
		if !strings.Contains(manual, "`"+key) {
			t.Errorf("docs/broker.md does not explain %s", key)
		}
	}
}

// What a reviewer of the cluster looks for.
func TestKubernetesManifest(t *testing.T) {
	all := objects(t)
	pod := all["Deployment"].Spec.Template.Spec
	c := pod.Containers[0]
	for what, ok := range map[string]bool{
		"two replicas, one of which stays":       all["Deployment"].Spec.Replicas >= 2 && all["PodDisruptionBudget"].Spec.MinAvailable == 1,
		"not root":                               pod.SecurityContext.NonRoot != nil && *pod.SecurityContext.NonRoot && pod.SecurityContext.User == 65532,
		"the default seccomp profile":            pod.SecurityContext.Seccomp.Type == "RuntimeDefault",
		"no token of the cluster":                pod.Automount != nil && !*pod.Automount,
		"no new privileges":                      c.SecurityContext.Escalation != nil && !*c.SecurityContext.Escalation,
		"a root file system that is read-only":   c.SecurityContext.ReadOnly,
		"no capability":                          len(c.SecurityContext.Caps.Drop) == 1 && c.SecurityContext.Caps.Drop[0] == "ALL",
		"probes":                                 c.LivenessProbe.Get.Path == "/healthz" && c.ReadinessProbe.Get.Path == "/readyz",
		"more time to end than the broker takes": pod.Grace > int(drain.Seconds())+5,
		"a network policy":                       all["NetworkPolicy"].Kind != "",
	} {
		if !ok {
			t.Errorf("docs/broker/kubernetes.yaml lacks %s", what)
		}
	}
}
