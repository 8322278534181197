package engine

import "testing"

// TestSpecHasNoNetwork: both words are said. An engine that does not know the one knows the other.
func TestSpecHasNoNetwork(t *testing.T) {
	cfg, host := Spec{}.config()
	if !cfg.NetworkDisabled || !host.NetworkMode.IsNone() {
		t.Errorf("NetworkDisabled %v, NetworkMode %q", cfg.NetworkDisabled, host.NetworkMode)
	}
}
