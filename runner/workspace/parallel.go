package workspace

import (
	"iter"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
)

// maxAhead bounds what waits for its turn, on whatever machine.
const maxAhead = 8

// inTurn works on parts on all processors, and takes what they gave one after the other, in their order. Only a few wait for their turn.
func inTurn[P, R any](parts iter.Seq[P], work func(P) R, take func(R) error) (err error) {
	ahead := min(2*runtime.GOMAXPROCS(0), maxAhead)
	var waiting []chan R
	next := func() {
		r := <-waiting[0]
		waiting = waiting[1:]
		if err == nil {
			err = take(r)
		}
	}
	for p := range parts {
		if len(waiting) == ahead {
			next()
		}
		if err != nil {
			break
		}
		done := make(chan R, 1)
		waiting = append(waiting, done)
		go func() { done <- work(p) }()
	}
	for len(waiting) > 0 {
		next()
	}
	return err
}

// share works on parts of a list on all processors.
func share[T any](list []T, work func([]T)) {
	const enough = 512 // to be worth a goroutine
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(list, enough) {
		all.Go(func() error {
			work(part)
			return nil
		})
	}
	_ = all.Wait()
}
