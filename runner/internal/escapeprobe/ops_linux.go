package main

import "maps"

func ops() map[string]operation {
	all := map[string]operation{}
	for _, part := range []map[string]operation{fileOps(), processOps(), selfOps(), bombOps(), networkOps(), netlinkOps(), webOps()} {
		maps.Copy(all, part)
	}
	return all
}
