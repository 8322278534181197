//go:build docker

package manifest

// Weakened says which precautions with what comes from inside are left out. It exists only in builds with the tag docker, so
// that the escape suite can show what each is good for.
type Weakened struct {
	Raw  bool // texts are not made printable
	Long bool // texts are not shortened
}

func (w Weakened) raw() bool { return w.Raw }

func (w Weakened) long() bool { return w.Long }
