package broker

import "testing"

func postgres(t testing.TB) string {
	t.Helper()
	t.Skip("the server of this test is started as Unix has it")
	return ""
}
