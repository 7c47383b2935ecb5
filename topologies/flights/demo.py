"""thin"""
import os, subprocess, sys, tempfile, time
from pathlib import Path
from collections import Counter
t00=time.time()
from nyc.data import *
from nyc.contexts import Issuer
from nyc.producer import Sender, intents
from nyc.refusals import Refusals
from nyc.results import Results
from pf_stream.kafka.dev import DevBroker
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.admin import Admin
from pf_stream.kafka.topics import create_topics
from pf_stream.topology import load_topology
HERE=Path(__file__).parent
def say(*a): print("%6.2f"%(time.time()-t00), *a, flush=True)
def main():
    every=int(os.environ.get("EVERY","1"))
    say("imports")
    with DevBroker.temporary() as broker, tempfile.TemporaryDirectory() as d:
        say("broker")
        c=ConnectionSettings(broker.bootstrap_servers)
        top=load_topology(str(HERE/"topology.yaml"))
        create_topics(Admin(c), top)
        say("topics")
        iss=Issuer.new(top.namespace); iss.key.save(d+"/k")
        log=open("/tmp/worker.log","w")
        w=subprocess.Popen([sys.executable,"-m","pf_stream","worker","run",str(HERE/"topology.yaml"),"--trust",d+"/k.pub","-b",broker.bootstrap_servers],stderr=log)
        try:
            frame=read_file(every); say("read",len(frame))
            exp=totals(frame); say("pandas")
            ref=Refusals.among(frame,iss); ctx=iss.contexts(sorted(frame.carrier.unique())); say("ctx")
            r=Results(c,top,top.partitions)
            s=Sender(broker.bootstrap_servers,"flights.intents")
            t=time.time(); n=0
            for i,it in enumerate(intents(flights(frame),ctx)):
                if i in ref.intents: s.send(ref.intents[i]); n+=1
                s.send(it); n+=1
                if n%2000==0: r.advance(0)
            s.finish(); say("produced",n,n/(time.time()-t), "handled",r.handled)
            while not(r.handled>=n and r.complete()):
                assert w.poll() is None
                r.advance(0.2);
            say("complete", n/(time.time()-t))
            got=r.totals(); say("totals", got==exp)
            print(got.airports,exp.airports)
            codes={l["ce_id"]:l["pf-error-code"] for l in r.dead_letters}
            say("dead", codes==ref.codes, len(r.dead_letters), Counter(codes.values()))
            for l in r.dead_letters:
                if ref.codes.get(l["ce_id"])!=l["pf-error-code"]: print(l); break
            r.close()
        finally:
            w.terminate(); say("exit",w.wait())
main()
