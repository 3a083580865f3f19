"""An S3 server on 127.0.0.1, in a process of its own: moto's, which keeps everything in memory."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

SECRET = "NobodyMaySeeThisSecretKey"

_SERVE = """
import sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.s3.models import s3_backends
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
for bucket in sys.argv[1:]:
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(bucket, "us-east-1")
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server(NamedTuple):
    """A server that runs."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What clients find it by."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A file system of fsspec with all rights, the same each time: for a new one botocore reads megabytes."""
        import fsspec

        access = {"key": "AKIATESTTESTTEST", "secret": SECRET, "endpoint_url": self.endpoint}
        return fsspec.filesystem("s3", use_listings_cache=False, **access)

    def copy(self, folder: str, to: str) -> None:
        """All objects of a folder, as ``bucket/path``: in one request each, where s3fs asks for each size before."""
        client, bucket = self.client(), to.partition("/")[0]
        for path in client.find(folder):
            key = path.replace(folder, to, 1).removeprefix(f"{bucket}/")
            client.call_s3("copy_object", Bucket=bucket, Key=key, CopySource=path)

    def make_refusing_bucket(self, bucket: str) -> None:
        """A bucket that lets nobody in."""
        client, resources = self.client(), [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        client.mkdir(bucket)
        statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": resources}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        client.call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)


@contextlib.contextmanager
def s3_server(*buckets: str, inside: Sequence[str] = ()) -> Iterator[S3Server]:
    """A server with these buckets until the block ends; skips the test where moto or s3fs are not installed.

    ``inside`` is the command of a network of its own to be in.
    """
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [*inside, sys.executable, "-c", _SERVE, *buckets]
    with subprocess.Popen(command, text=True, **streams) as process:  # type: ignore[call-overload]
        try:
            yield S3Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.stdin.close()
            process.terminate()
