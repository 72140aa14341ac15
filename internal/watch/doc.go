// Package watch holds the latest value of something and tells its readers when it is superseded.
//
// It is the only way a change travels between goroutines here: a reader sees the latest value, never a
// queue of old ones, so a slow reader skips versions and costs nobody anything.
//
//	for {
//		v, next := value.Get()
//		use(v)
//		select {
//		case <-next:
//		case <-ctx.Done():
//			return
//		}
//	}
package watch
