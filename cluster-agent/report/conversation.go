package report

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// conversation is one stream, owned by one goroutine.
type conversation struct {
	reporter *Reporter
	stream   pb.AgentService_ReportClient
	cancel   context.CancelCauseFunc // ends the stream
	address  string
	answers  <-chan *pb.ReportResponse
	lost     <-chan error

	ledger *ledger
	status Status
	flight map[mesh.Key][]byte // the update that is not acknowledged; nil: none
}

var errSilent = errors.New("controller does not answer")

// welcome waits for what the controller has.
func (c *conversation) welcome(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-c.lost:
		return err
	case <-time.After(c.reporter.config.AnswerTimeout):
		return errSilent
	case answer := <-c.answers:
		welcome := answer.GetWelcome()
		if welcome == nil {
			return errors.New("controller answered hello with something else than welcome")
		}
		return c.begin(welcome)
	}
}

func (c *conversation) begin(welcome *pb.Welcome) error {
	config := &c.reporter.config
	if cluster := welcome.GetCluster(); cluster != nil {
		config.OnCluster(cluster)
	}
	c.members(welcome)
	snapshot, _ := config.Store.Latest()
	c.ledger = newLedger(config.Owner, welcome.GetHave(), snapshot)
	c.status = Status{
		Controller: c.address, Since: time.Now(), Epoch: welcome.GetEpoch(), Had: len(c.ledger.have), Refused: map[string]string{},
	}
	c.publish()
	c.reporter.metrics.connected.Set(1)
	config.Load(time.Now()) // what gathered while nobody listened is old
	config.Log.Info("reporting", "peer", c.address, "epoch", welcome.GetEpoch(), "differs", len(c.ledger.dirty))
	return nil
}

func (c *conversation) members(welcome *pb.Welcome) {
	if controllers := welcome.GetControllers(); len(controllers) > 0 {
		c.reporter.config.OnControllers(controllers)
	}
}

func (c *conversation) run(ctx context.Context) error {
	config := &c.reporter.config
	load := time.NewTicker(config.LoadInterval)
	defer load.Stop()
	silent := time.NewTimer(config.AnswerTimeout)
	defer silent.Stop()
	settled := config.Settled
	for {
		snapshot, changed := config.Store.Latest()
		c.ledger.advance(snapshot)
		if c.flight == nil {
			if err := c.send(); err != nil {
				return err
			}
			silent.Reset(config.AnswerTimeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-c.lost:
			return err
		case <-changed:
		case <-settled:
			c.ledger.settle()
			settled = nil
		case answer := <-c.answers:
			if err := c.answer(answer); err != nil {
				return err
			}
		case now := <-load.C:
			if err := c.load(now); err != nil {
				return err
			}
		case <-silent.C:
			if c.flight != nil {
				return errSilent
			}
		}
	}
}

// send puts the next update on its way, if there is anything to say.
func (c *conversation) send() error {
	update, sent := c.ledger.next()
	c.reporter.metrics.pending.Set(float64(len(c.ledger.dirty)))
	if update == nil {
		return nil
	}
	c.status.Sequence++
	update.Epoch, update.Sequence = c.status.Epoch, c.status.Sequence
	c.flight = sent
	c.publish()
	c.reporter.metrics.updates.Inc()
	c.reporter.metrics.objects.Add(float64(len(sent)))
	return c.put(&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: update}})
}

// put sends m. A controller that reads no more fills the stream's window, and Send would wait for as long as the
// connection lives: then the stream ends.
func (c *conversation) put(m *pb.ReportRequest) error {
	watchdog := time.AfterFunc(c.reporter.config.AnswerTimeout, func() { c.cancel(errSilent) })
	defer watchdog.Stop()
	return c.stream.Send(m)
}

func (c *conversation) answer(answer *pb.ReportResponse) error {
	ack := answer.GetAck()
	if ack == nil {
		if cluster := answer.GetWelcome().GetCluster(); cluster != nil {
			c.reporter.config.OnCluster(cluster) // the registration changed
		}
		c.members(answer.GetWelcome())
		return nil
	}
	if c.flight == nil || ack.GetSequence() != c.status.Sequence {
		return fmt.Errorf("controller acknowledged update %d, sent was %d", ack.GetSequence(), c.status.Sequence)
	}
	refused := maps.Clone(c.status.Refused)
	for key := range c.flight {
		delete(refused, string(key))
	}
	for _, rejection := range ack.GetRejections() {
		refused[rejection.GetKey()] = rejection.GetReason()
		c.reporter.metrics.rejections.Inc()
		c.reporter.config.Log.Error("controller refused an object of this cluster", "key", rejection.GetKey(), "err", rejection.GetReason())
	}
	c.ledger.acknowledge(c.flight, ack.GetRejections())
	c.flight, c.status.Index, c.status.Refused = nil, ack.GetIndex(), refused
	c.publish()
	return nil
}

func (c *conversation) load(now time.Time) error {
	report := c.reporter.config.Load(now)
	if report == nil {
		return nil
	}
	return c.put(&pb.ReportRequest{Message: &pb.ReportRequest_Load{Load: report}})
}

func (c *conversation) publish() {
	c.status.Pending = len(c.ledger.dirty) + len(c.flight)
	c.reporter.status.Set(c.status)
}
