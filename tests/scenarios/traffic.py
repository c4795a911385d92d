"""DNS and edge while all is well, and by an operator's wish."""
import dns.edns
import dns.rcode

from lab import AMERICAN, BRITISH, REGIONS, SINGAPOREAN, eventually, expect, expect_true
from postgres import role, streams

WWW = "www.example.test"


def scenario_clients_are_sent_to_the_nearest_region(lab):
    for server in REGIONS:
        lab.sent(server, WWW, AMERICAN, ["us-east"])
        lab.sent(server, WWW, BRITISH, ["eu-west"])
        lab.sent(server, WWW, SINGAPOREAN, ["ap-southeast"])


def scenario_regional_names_are_answered_everywhere(lab):
    for server in REGIONS:
        lab.sent(server, "api-us.example.test", BRITISH, ["us-east"])
        lab.sent(server, "api-eu.example.test", AMERICAN, ["eu-west"])
        lab.sent(server, "api-ap.example.test", AMERICAN, ["ap-southeast"])


def scenario_the_scope_is_that_of_the_network(lab):
    answer = lab.ask_dns("us-east", WWW, BRITISH)
    options = [option for option in answer.options if isinstance(option, dns.edns.ECSOption)]
    expect(len(options), 1, "client-subnet options in the answer")
    expect(options[0].srclen, 27, "source as asked")
    expect(options[0].scopelen, 27, "scope of the database's network")


def scenario_other_names_and_types_are_answered_properly(lab):
    answer = lab.ask_dns("us-east", WWW, BRITISH, kind="AAAA")
    expect((answer.rcode(), len(answer.answer)), (dns.rcode.NOERROR, 0), "AAAA: no data")
    expect_true(answer.authority, "no data carries the SOA")
    answer = lab.ask_dns("us-east", "nosuch.example.test")
    expect(answer.rcode(), dns.rcode.NXDOMAIN, "a name that is not there")
    answer = lab.ask_dns("us-east", "example.test", kind="SOA", tcp=True)
    expect(len(answer.answer), 1, "the SOA, over TCP")


def scenario_the_edge_answers_from_its_own_region(lab):
    for region in REGIONS:
        header, page = lab.get(region)
        expect(header, region, "header Meridian-Region")
        expect(page["region"], region, "the backend's region")


def backends_of(lab, region, tries):
    return {lab.get(region)[1]["backend"] for _ in range(tries)}


def scenario_both_backends_share_the_work(lab):
    eventually("both have answered",
               lambda: backends_of(lab, "eu-west", 10) == {"eu-west-1", "eu-west-2"})


def scenario_one_backend_alone_carries_on(lab):
    lab.kill_part("eu-west", "backend-1")
    expect(backends_of(lab, "eu-west", 20), {"eu-west-2"}, "the other answers, no request fails")
    lab.start("eu-west")
    eventually("both answer again",
               lambda: backends_of(lab, "eu-west", 6) == {"eu-west-1", "eu-west-2"})


def scenario_without_backends_the_edge_goes_to_the_nearest_region(lab):
    lab.kill_part("us-east", "backend-1")
    lab.kill_part("us-east", "backend-2")
    header, page = lab.get("us-east")
    expect((header, page["region"]), ("eu-west", "eu-west"), "70 ms away, not 220")
    lab.start("us-east")
    eventually("its own again", lambda: lab.get("us-east")[0] == "us-east")
    lab.wait_all_active()


def scenario_a_drained_region_gets_no_new_traffic(lab):
    lab.meridian("drain", "us-east", "maintenance")
    eventually("draining or drained", lambda: lab.state("us-east") in ("draining", "drained"))
    lab.sent("eu-west", WWW, AMERICAN, ["eu-west"])
    lab.redis("us-east").set("drained", "still writes")
    eventually("its data still goes out",
               lambda: lab.redis("eu-west").get("drained") == "still writes")
    lab.meridian("undrain", "us-east")
    eventually("active", lambda: lab.state("us-east") == "active")
    lab.sent("eu-west", WWW, AMERICAN, ["us-east"])
    lab.wait_all_active()


def scenario_an_isolated_region_is_out_until_it_is_let_in(lab):
    lab.meridian("isolate", "ap-southeast", "a drill")
    eventually("isolated", lambda: lab.state("ap-southeast") == "isolated")
    eventually("nobody is sent there",
               lambda: lab.dns("us-east", WWW, SINGAPOREAN) != ["ap-southeast"])
    standby = role("ap-southeast") == "standby"
    eventually("its standby gets nothing", lambda: not streams("ap-southeast"))
    lab.meridian("unisolate", "ap-southeast")
    lab.wait_all_active()
    eventually("its standby goes on", lambda: streams("ap-southeast") == standby)
    lab.sent("us-east", WWW, SINGAPOREAN, ["ap-southeast"])
