package actions

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Output is a value for later steps.
type Output struct{ Name, Value string }

// WriteOutputs appends values to a file of the runner's (GITHUB_OUTPUT, GITHUB_STATE). Each gets a delimiter of its own that nobody could
// have known when the value was made: with a constant one a value that holds it is cut short, and the rest of it is read as
// other outputs.
func WriteOutputs(file string, outputs []Output) error {
	if file == "" {
		return errors.New("the runner named no file for the outputs")
	}
	var b strings.Builder
	for _, o := range outputs {
		if strings.ContainsAny(o.Name, "\r\n=<") || o.Name == "" {
			return fmt.Errorf("%q can't be the name of an output", o.Name)
		}
		delimiter := "agent-sandbox-" + rand.Text()
		value := strings.ReplaceAll(o.Value, "\x00", "")
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o.Name, delimiter, value, delimiter)
	}
	return appendTo(file, b.String())
}

// maxSummary is GitHub's limit for the summary of a step, in bytes.
const maxSummary = 1 << 20

// WriteSummary appends Markdown to the job's summary.
func WriteSummary(file, markdown string) error {
	if file == "" {
		return nil // an old runner
	}
	if len(markdown) > maxSummary {
		return fmt.Errorf("the summary has %d bytes, more than the %d that GitHub takes", len(markdown), maxSummary)
	}
	return appendTo(file, markdown)
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
