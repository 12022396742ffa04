"""Drives paho-mqtt from the black-box tests: one JSON command a line on stdin, one JSON event a line on stdout.

Commands and events are described in ../support/driver.rs.
"""

import json
import sys
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

printing = threading.Lock()


def emit(event, **fields):
    with printing:
        print(json.dumps({"event": event, **fields}), flush=True)


def connect(command):
    is_v5 = command["version"] == 5
    stored = command.get("stored", False)
    transport = command.get("transport", "")
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=command["id"],
        protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
        clean_session=None if is_v5 else not stored,
        reconnect_on_failure=False,
        transport="websockets" if transport in ("ws", "wss") else "tcp",
    )
    if transport in ("ws", "wss"):
        client.ws_set_options(path=command["path"])
    if transport in ("tls", "wss"):
        client.tls_set(ca_certs=command["ca"], certfile=command.get("cert"), keyfile=command.get("key"))
    if "user" in command:
        client.username_pw_set(command["user"], command["password"])
    client.on_connect = lambda client, data, flags, code, properties: emit(
        "connected", code=code.value, present=flags.session_present
    )
    client.on_disconnect = lambda client, data, flags, code, properties: emit("lost", code=code.value)
    client.on_publish = lambda client, data, mid, code, properties: emit("puback", code=code.value)
    client.on_subscribe = lambda client, data, mid, codes, properties: emit("suback", codes=[c.value for c in codes])
    client.on_unsubscribe = lambda client, data, mid, codes, properties: emit("unsuback")

    def on_message(client, data, message):
        properties = message.properties.json() if is_v5 and message.properties else {}
        reply = {}
        if "ResponseTopic" in properties:
            correlation = message.properties.CorrelationData.decode()
            reply = {"replyTo": properties["ResponseTopic"], "correlation": correlation}
        emit(
            "message",
            topic=message.topic,
            payload=message.payload.decode(),
            qos=message.qos,
            retain=message.retain,
            ids=sorted(properties.get("SubscriptionIdentifier", [])),
            **reply,
        )

    client.on_message = on_message
    if "will" in command:
        client.will_set(command["will"], command["willPayload"], qos=1)
    more = {}
    if is_v5 and stored:
        more = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
        more["properties"].SessionExpiryInterval = 7200
    client.connect(command["host"], command["port"], keepalive=60, **more)
    client.loop_start()
    return client, is_v5


def subscribe(client, is_v5, command):
    if not is_v5:
        client.subscribe(command["filter"], qos=command["qos"])
        return
    properties = Properties(PacketTypes.SUBSCRIBE)
    if "subscriptionId" in command:
        properties.SubscriptionIdentifier = command["subscriptionId"]
    options = SubscribeOptions(qos=command["qos"], noLocal=command.get("noLocal", False))
    client.subscribe(command["filter"], options=options, properties=properties)


def publish(client, is_v5, command):
    properties = None
    if is_v5:
        properties = Properties(PacketTypes.PUBLISH)
        if "ack" in command:
            properties.UserProperty = ("ack", command["ack"])
        if "correlation" in command:
            properties.CorrelationData = command["correlation"].encode()
    retain = command.get("retain", False)
    client.publish(command["topic"], command["payload"], qos=command["qos"], retain=retain, properties=properties)


def main():
    client, is_v5 = None, False
    for line in sys.stdin:
        command = json.loads(line)
        op = command["op"]
        if op == "connect":
            client, is_v5 = connect(command)
        elif op == "subscribe":
            subscribe(client, is_v5, command)
        elif op == "unsubscribe":
            client.unsubscribe(command["filter"])
        elif op == "publish":
            publish(client, is_v5, command)
        elif op == "disconnect":
            client.disconnect()


main()
