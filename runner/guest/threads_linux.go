package guest

import (
	"runtime"
	"sync"

	"github.com/org/agent-sandbox/runner/link"
)

// maxProcs bounds the threads that run Go code at once, on machines with many processors as well: the guest copies
// bytes, and each thread of it is one of the container's.
const maxProcs = 4

// spareThreads starts all the threads that this process will ever need. The runtime keeps them, and takes an idle one
// before it asks for another; when it asks and the agent has used the container's processes up, it can only abort,
// and with process 1 the whole sandbox would end.
func spareThreads() {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcs))
	var running, ended sync.WaitGroup
	running.Add(link.GuestThreads)
	release := make(chan struct{})
	for range link.GuestThreads {
		ended.Go(func() {
			runtime.LockOSThread() // so that no two share a thread
			defer runtime.UnlockOSThread()
			running.Done()
			<-release
		})
	}
	running.Wait()
	close(release)
	ended.Wait()
}
