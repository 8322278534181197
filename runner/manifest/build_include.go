package manifest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// maxIncluded bounds one content. Escapes may make six times as much of it.
const maxIncluded = 16 << 10

// maxSecret is read beyond it, so that no secret is cut in two before it is taken out.
const maxSecret = 64 << 10

// include adds the contents that the policy asks for.
func (b *builder) include() error {
	var p struct {
		Evidence struct {
			Include []string `json:"include"`
		} `json:"evidence"`
	}
	if len(b.p.Policy.Compiled) == 0 || json.Unmarshal(b.p.Policy.Compiled, &p) != nil {
		return nil
	}
	files := map[string]string{"events": eventsFile, "patch": patchFile, "stderr": "stderr.log", "stdout": "stdout.log"}
	for _, name := range slices.Sorted(slices.Values(p.Evidence.Include)) {
		if name == "patch" && b.in.Redact == nil { // the logs had none from the beginning
			b.missing("included.patch", "the runner that knew the secrets died, so they can't be taken out")
			continue
		}
		content, size := []byte(b.in.Prompt), int64(len(b.in.Prompt))
		if file := files[name]; file != "" {
			var err error
			content, size, err = b.read(file, maxIncluded+maxSecret)
			if errors.Is(err, fs.ErrNotExist) {
				b.missing("included."+name, "there is no file")
				continue
			}
			if err != nil {
				return err
			}
		}
		if name == "prompt" && size == 0 {
			why := "no task was given in words"
			if b.s.Start != nil && b.s.Start.Task != nil {
				why = "the runner that knew it died"
			}
			b.missing("included.prompt", why)
			continue
		}
		text := b.redacted(string(content))
		b.p.Included = append(b.p.Included, Included{
			Name: name, Text: strings.ToValidUTF8(text[:min(len(text), maxIncluded)], "\ufffd"), Bytes: size, Clipped: len(text) > maxIncluded || size > int64(len(content)),
		})
	}
	return nil
}

// redacted is a content without the run's secrets.
func (b *builder) redacted(text string) string {
	if b.in.Redact == nil {
		return text
	}
	return b.in.Redact(text)
}
