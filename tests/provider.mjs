// A real identity provider on loopback: oidc-provider, with one public client, a device flow and JWTs for one API.
// Whoever comes is logged in as the person in ?login_hint, or as "ann"; every consent is given.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const { Provider } = await import(createRequire(process.argv[2]).resolve('oidc-provider'));
const audience = process.argv[3];
const lifetime = Number(process.argv[4]);

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'flux', token_endpoint_auth_method: 'none', application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback'], response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  }],
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'openid offline_access', audience, accessTokenFormat: 'jwt', accessTokenTTL: lifetime, jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  scopes: ['openid', 'offline_access'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: lifetime, IdToken: 3600, RefreshToken: 3600, DeviceCode: 600, Grant: 3600, Session: 3600, Interaction: 600 },
  loadExistingGrant: async (ctx) => {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid offline_access');
    grant.addResourceScope(audience, 'openid offline_access');
    await grant.save();
    return grant;
  },
});
const handle = provider.callback();
server.on('request', async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return handle(request, response);
  const found = await provider.interactionDetails(request, response);
  const accountId = found.params.login_hint ?? 'ann';
  const result = found.prompt.name === 'login' ? { login: { accountId } } : { consent: {} };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
});
console.log(issuer);
