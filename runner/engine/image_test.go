package engine

import (
	"strings"
	"testing"
)

func TestAccounts(t *testing.T) {
	image := accounts{
		Passwd: "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/sh\nagent:x:7:7::/:/bin/sh\nbroken\n",
		Group:  "root:x:0:\nnode:x:1000:\nstaff:x:50:\n",
		Bash:   true,
	}
	for _, tt := range []struct {
		name          string
		accounts      accounts
		uid, gid      int
		passwd, group string
	}{
		{
			"replaces the same id and the same name", image, 1000, 1000,
			"agent:x:1000:1000:agent:/home/agent:/bin/bash\nroot:x:0:0:root:/root:/bin/bash\n",
			"agent:x:1000:\nroot:x:0:\nstaff:x:50:\n",
		},
		{
			"an image without accounts",
			accounts{},
			1234, 5,
			"agent:x:1234:5:agent:/home/agent:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n",
			"agent:x:5:\nroot:x:0:\n",
		},
		{
			"root, if the policy says so",
			accounts{Bash: true},
			0, 0,
			"root:x:0:0:root:/home/agent:/bin/bash\n",
			"root:x:0:\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.accounts.passwdFor(tt.uid, tt.gid)); got != tt.passwd {
				t.Errorf("passwd:\n%s\nwant:\n%s", got, tt.passwd)
			}
			if got := string(tt.accounts.groupFor(tt.gid)); got != tt.group {
				t.Errorf("group:\n%s\nwant:\n%s", got, tt.group)
			}
		})
	}
}

func TestCheckStaticRefuses(t *testing.T) {
	err := checkStatic([]byte("#!/bin/sh\n"), "amd64")
	if err == nil || !strings.Contains(err.Error(), "not a Linux program") {
		t.Errorf("checkStatic(script) = %v", err)
	}
}
